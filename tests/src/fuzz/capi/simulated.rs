//! The simulator, with the machines that nodes here have, on the thread of the call.

use std::cell::Cell;
use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr::{null, null_mut};
use std::sync::Arc;

use raftz::bytes::raftz_slice;
use raftz::error::raftz_error;
use raftz::machine::*;
use raftz::sim::*;
use raftz::status::*;

use super::judge::{
    FILLING, Given, Versioned, bytes, call, complain, documented, judged, shown, slice,
};
use super::machine::{Fault, Spec, Truth};
use super::world::World;
use crate::fuzz::tape::Tape;

/// How a workload is, and what a run has asked of it.
struct Client {
    way: Way,
    spec: *const Spec,
    drawn: Cell<u64>,
    told: Cell<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Good,
    Fails,
    TooLarge,
    /// Commands are drawn by the library.
    None,
}

fn client<'a>(user_data: *mut c_void) -> &'a Client {
    // SAFETY: it lives until the run is over, which happens on one thread.
    unsafe { &*user_data.cast_const().cast::<Client>() }
}

unsafe extern "C" fn workload(
    user_data: *mut c_void,
    chooser: *mut raftz_sim_chooser,
    command: *mut raftz_sink,
) -> raftz_status {
    let client = client(user_data);
    client.drawn.set(client.drawn.get() + 1);
    if client.drawn.get() == 1 {
        is_inside(client, chooser);
    }
    if client.way == Way::Fails && client.drawn.get() == 3 {
        documented("raftz_sink_fail", call!(raftz_sink_fail(command, slice(b"no command"))));
        return RAFTZ_CALLBACK_FAILED;
    }
    let mut all = [FILLING; 5];
    let count = call!(raftz_sim_chooser_below(chooser, 4)) as usize;
    let status = call!(raftz_sim_chooser_fill(chooser, all.as_mut_ptr(), count));
    documented("raftz_sim_chooser_fill", status);
    if count > 3 || status != RAFTZ_OK || all[count..].iter().any(|byte| *byte != FILLING) {
        complain(format!("{count} random bytes: {all:?}, {}", shown(status)));
    }
    let large = [b'.'; RAFTZ_SIM_COMMAND_BYTES_MAX + 1];
    let is_large = client.way == Way::TooLarge && client.drawn.get() == 3;
    let word = slice(if is_large { &large } else { &all[..count] });
    let status = call!(raftz_sink_write(command, word));
    documented("raftz_sink_write", status);
    status
}

/// What takes its time is refused here, and a chooser that cannot answer says so.
fn is_inside(client: &Client, chooser: *mut raftz_sim_chooser) {
    // SAFETY: the world keeps it.
    let table = unsafe { &*client.spec }.table(0);
    let (mut report, error) = (null_mut(), null_mut());
    let run = call!(raftz_sim_run(&raw const table, 1, null(), &raw mut report, error));
    documented("raftz_sim_run", run);
    let nowhere = call!(raftz_sim_chooser_fill(chooser, null_mut(), 1));
    let nobody = call!(raftz_sim_chooser_fill(null_mut(), null_mut(), 0));
    let mut byte = 0;
    let endless = call!(raftz_sim_chooser_fill(chooser, &raw mut byte, usize::MAX));
    let wanted = (RAFTZ_IN_CALLBACK, RAFTZ_NULL_ARG, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG);
    if (run, nowhere, nobody, endless) != wanted {
        complain(format!("in a workload: {run}, {nowhere}, {nobody}, {endless}"));
    }
    for (chooser, count) in [(chooser, 0), (chooser, 1), (null_mut(), 9)] {
        let number = call!(raftz_sim_chooser_below(chooser, count));
        if number != 0 {
            complain(format!("{number}, of {count}"));
        }
    }
}

unsafe extern "C" fn tell(user_data: *mut c_void, line: raftz_slice) {
    client(user_data).told.set(client(user_data).told.get() + 1);
    // SAFETY: it lives until this returns.
    if String::from_utf8(unsafe { bytes(line) }).is_err() {
        complain("a line of a run that is no text".to_owned());
    }
}

const WITHOUT: [&[u8]; 5] = [b"", b"rot", b"kill,rot", b"no such fault", b"\xff"];
const SKIP: [&[u8]; 4] = [b"", b"3,5-9", b"9-", b"\xff"];

/// One run of an input, for each takes its time.
pub(super) fn simulate(world: &mut World, tape: &mut Tape<'_>) {
    if std::mem::replace(&mut world.has_simulated, true) {
        return;
    }
    let (seed, bits) = (u64::from(tape.byte()), tape.byte());
    let fault = [Fault::Nothing, Fault::Nothing, Fault::Create, Fault::Apply][tape.below(4)];
    let way = [Way::Good, Way::None, Way::Fails, Way::TooLarge][tape.below(4)];
    let words = tape.byte();
    let after = u64::from(bits >> 4);
    let mut opts = raftz_sim_opts {
        size: 0,
        duration_us: [50_000, 200_000, 1, 3_600_000_001][usize::from(bits & 3)],
        // What one machine was given the next one of a shorter run need not be given.
        shrink_runs: u64::from(fault == Fault::Nothing),
        without: slice(WITHOUT[usize::from(words) % WITHOUT.len()]),
        skip: slice(SKIP[usize::from(words) / WITHOUT.len() % SKIP.len()]),
        user_data: null_mut(),
        workload: (way != Way::None).then_some(workload),
        tell: (bits & 4 != 0).then_some(tell),
    };
    let mut traces = Vec::new();
    // A run that is repeated is the same.
    for _ in 0..1 + usize::from(bits >> 3 & 1) {
        let spec = Spec::new(&Arc::new(Truth::default()), fault, after);
        let (drawn, told) = (Cell::new(0), Cell::new(0));
        let client = Client { way, spec: Arc::as_ptr(&spec), drawn, told };
        opts.user_data = (&raw const client).cast_mut().cast();
        let mut again = tape.clone();
        traces.push(run(&mut again, seed, opts, &client, &spec));
        assert_eq!(spec.left(), 0, "machines and snapshots of a run that is over");
        world.specs.push(spec);
    }
    assert!(traces.iter().all(|it| *it == traces[0]), "one seed, and two runs: {traces:?}");
}

/// What is told of a run.
fn run(
    tape: &mut Tape<'_>,
    seed: u64,
    opts: raftz_sim_opts,
    client: &Client,
    spec: &Arc<Spec>,
) -> (raftz_status, Option<(u64, u64)>) {
    let mut machine = Versioned::given(tape, spec.table(0));
    let mut opts = Versioned::given(tape, opts);
    // Without options faults would go on for a minute.
    let is_short = opts.is_seen(offset_of!(raftz_sim_opts, duration_us));
    let machine = if is_short { machine.pointer() } else { null_mut() };
    let mut given = Given::new();
    let status = judged(tape, "raftz_sim_run", 0, |error| {
        call!(raftz_sim_run(machine, seed, opts.pointer(), given.place(), error))
    });
    let Some(report) = given.after(status) else { return (status, None) };
    let mut place = Versioned::<raftz_sim_report_info>::place(tape);
    let into = place.pointer();
    let status = judged(tape, "raftz_sim_report_get", 0, |error| {
        call!(raftz_sim_report_get(report, into, error))
    });
    let info = place.after(status);
    if let Some(info) = &info {
        // SAFETY: they live as long as the report.
        let words =
            unsafe { [info.property, info.sentence, info.skip, info.struck].map(|it| bytes(it)) };
        let [property, sentence, ..] =
            words.map(|it| String::from_utf8(it).expect("words of a report are UTF-8"));
        let is_sound = info.is_violated == 0;
        assert!(is_sound || spec.fault == Fault::Apply, "{property}: {sentence}");
        assert_eq!((property.is_empty(), sentence.is_empty()), (is_sound, is_sound));
        assert_eq!(info.seed, seed);
        let ended = info.calls_done + info.calls_refused + info.calls_unknown;
        assert!(ended <= info.calls, "more ends than calls: {info:?}");
        assert!(client.way == Way::None || client.drawn.get() >= info.calls, "{info:?}");
    }
    call!(raftz_sim_report_free(report));
    (status, info.map(|it| (it.trace, client.told.get())))
}

/// NULL is nothing.
pub(super) fn of_nothing() {
    let error = null_mut::<*mut raftz_error>();
    let mut place = Versioned::<raftz_sim_report_info>::place(&mut Tape::new(&[]));
    let status = call!(raftz_sim_report_get(null(), place.pointer(), error));
    assert_eq!(status, RAFTZ_NULL_ARG);
    place.after(status);
    call!(raftz_sim_report_free(null_mut()));
}
