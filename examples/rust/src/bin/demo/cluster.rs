//! The parent's side of the three processes: starting, killing, ordering about, and one queue of
//! everything that they and the person at the keyboard say.
//!
//! No process outlives this: dropping it kills them, whatever the reason, and then the directory
//! goes. If the parent itself is killed, the children see their standard input end.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Instant;

use raftz_examples::{Ports, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tempfile::TempDir;

use crate::args::{ChildOptions, ParentOptions};
use crate::wire::{Order, Report};
use crate::work::Work;

/// How many nodes there are.
pub(crate) const NODES: usize = 3;

/// Something that happened.
pub(crate) enum Event {
    /// A child said this. The time is when it was read.
    Report { place: usize, report: Report, at: Instant },
    /// A child's output has ended, and with it everything that it ever said.
    Ended { place: usize },
    /// The person, or the system, wants an end.
    Signal(i32),
}

/// Three processes, or what is left of them.
pub(crate) struct Cluster {
    children: Vec<Option<Process>>,
    options: Vec<ChildOptions>,
    sender: Sender<Event>,
    pub(crate) events: Receiver<Event>,
    _ports: Ports,
    // Last: removed when nobody writes there any more.
    directory: TempDir,
}

struct Process {
    child: Child,
    orders: ChildStdin,
}

impl Cluster {
    /// Makes the directory, holds the ports and listens for signals. Starts nothing yet.
    pub(crate) fn prepare(work: &Work, options: &ParentOptions) -> Result<Self> {
        let (sender, events) = mpsc::channel();
        // Before there is anything to clean up.
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let signal_sender = sender.clone();
        thread::spawn(move || {
            signals.forever().try_for_each(|signal| signal_sender.send(Event::Signal(signal)))
        });
        let parent = options.data.clone().unwrap_or_else(std::env::temp_dir);
        let directory =
            tempfile::Builder::new().prefix("raftz-demo-").tempdir_in(&parent).map_err(
                |error| format!("no directory for the data in {}: {error}", parent.display()),
            )?;
        // A copy: the input may be a pipe, and must not change under the children.
        std::fs::write(directory.path().join("input"), work.text())?;
        let ports = Ports::reserve(NODES)?;
        let children = (0..NODES).map(|_| None).collect();
        let options = (0..NODES)
            .map(|place| ChildOptions {
                place,
                root: directory.path().to_owned(),
                addresses: ports.addresses(),
                writes_min: options.writes_min,
                sabotage: options.sabotage && place == 1,
            })
            .collect();
        Ok(Self { children, options, sender, events, _ports: ports, directory })
    }

    /// Where the data is.
    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Where the nodes listen.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.options[0].addresses
    }

    /// Starts a process.
    pub(crate) fn spawn(&mut self, place: usize) -> Result<u32> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(self.options[place].to_arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C on a terminal goes to the parent alone, which then sees to the rest.
            .process_group(0)
            .spawn()?;
        let id = child.id();
        let (Some(orders), Some(reports)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a child without pipes".into());
        };
        let sender = self.sender.clone();
        self.children[place] = Some(Process { child, orders });
        thread::spawn(move || listen(place, BufReader::new(reports), &sender));
        Ok(id)
    }

    /// Kills a process with SIGKILL and waits until it is gone. What it said before may still come;
    /// [`Event::Ended`] is the end of it.
    pub(crate) fn kill(&mut self, place: usize) -> Result<()> {
        if let Some(mut process) = self.children[place].take() {
            process.child.kill()?;
            process.child.wait()?;
        }
        Ok(())
    }

    /// Whether a process should be there.
    pub(crate) fn runs(&self, place: usize) -> bool {
        self.children[place].is_some()
    }

    /// Gives an order. A child that is not there any more cannot be told; its end is an event.
    pub(crate) fn order(&mut self, place: usize, order: &Order) {
        if let Some(process) = &mut self.children[place] {
            let line = format!("{order}\n");
            let _ = process.orders.write_all(line.as_bytes()).and_then(|()| process.orders.flush());
        }
    }

    /// Lets all end in order, and says how they did.
    pub(crate) fn stop(&mut self) -> Result<()> {
        for place in 0..NODES {
            self.order(place, &Order::Stop);
        }
        for (place, slot) in self.children.iter_mut().enumerate() {
            if let Some(mut process) = slot.take() {
                let status = process.child.wait()?;
                if !status.success() {
                    return Err(
                        format!("node {} did not stop in order: {status}", place + 1).into()
                    );
                }
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.children.iter_mut().flatten() {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

/// Reads a child's lines until they end. A last line without an end was cut by a kill and counts
/// for nothing.
fn listen(place: usize, mut reports: impl BufRead, sender: &Sender<Event>) {
    let mut line = String::new();
    loop {
        line.clear();
        match reports.read_line(&mut line) {
            Ok(count) if count > 0 && line.ends_with('\n') => {}
            Ok(_) | Err(_) => break,
        }
        let at = Instant::now();
        let report = Report::parse(line.trim_end_matches('\n'))
            .unwrap_or_else(|| Report::Fatal(format!("it said: {}", line.trim_end())));
        if sender.send(Event::Report { place, report, at }).is_err() {
            return;
        }
    }
    let _ = sender.send(Event::Ended { place });
}
