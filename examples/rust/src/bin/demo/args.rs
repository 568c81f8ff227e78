//! The command line, of the parent and of the children that it starts.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// What a person may give.
pub(crate) const USAGE: &str = "usage: demo [--input FILE] [--writes N] [--data DIR]
  --input FILE  every line of it becomes a write (default: raftz's own README)
  --writes N    repeat the file until there are at least so many (default: 200000)
  --data DIR    where the nodes keep their data while this runs (default: the system's
                directory for temporary files)";

/// Fewest writes: a load that is over in a blink has no middle in which to kill somebody.
const WRITES_MIN: u64 = 1000;

/// Which part this process plays.
pub(crate) enum Role {
    Help,
    Parent(ParentOptions),
    Child(ChildOptions),
}

/// What the parent is to do.
#[derive(Debug)]
pub(crate) struct ParentOptions {
    pub(crate) input: Option<PathBuf>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) writes_min: u64,
    /// For the test of the test: one node hides one acknowledged key, which must end in FAIL.
    pub(crate) sabotage: bool,
}

/// What a child is to be. The parent writes this, no person does.
#[derive(Clone, Debug)]
pub(crate) struct ChildOptions {
    /// Its place among the three, from 0.
    pub(crate) place: usize,
    /// Where all the demo's data is; removed by the children if the parent dies.
    pub(crate) root: PathBuf,
    pub(crate) addresses: Vec<String>,
    pub(crate) writes_min: u64,
    pub(crate) sabotage: bool,
}

impl ChildOptions {
    /// The arguments that make a child of these options.
    pub(crate) fn to_arguments(&self) -> Vec<OsString> {
        let mut out: Vec<OsString> = vec![
            "--node".into(),
            self.place.to_string().into(),
            "--root".into(),
            self.root.clone().into(),
            "--addresses".into(),
            self.addresses.join(",").into(),
            "--writes".into(),
            self.writes_min.to_string().into(),
        ];
        if self.sabotage {
            out.push("--sabotage".into());
        }
        out
    }
}

impl Role {
    pub(crate) fn from_arguments(arguments: Vec<OsString>) -> Result<Self, String> {
        let mut rest = arguments.into_iter();
        let (mut input, mut data, mut root) = (None, None, None);
        let (mut writes_min, mut place) = (200_000, None);
        let mut addresses = Vec::new();
        let mut sabotage = false;
        while let Some(name) = rest.next() {
            let mut value = || rest.next().ok_or(format!("{} needs a value", name.display()));
            match name.to_str() {
                Some("--help" | "-h") => return Ok(Self::Help),
                Some("--input") => input = Some(PathBuf::from(value()?)),
                Some("--data") => data = Some(PathBuf::from(value()?)),
                Some("--writes") => writes_min = number(&name, &value()?)?.max(WRITES_MIN),
                Some("--sabotage") => sabotage = true,
                Some("--node") => place = Some(number(&name, &value()?)? as usize),
                Some("--root") => root = Some(PathBuf::from(value()?)),
                Some("--addresses") => {
                    addresses = text(&value()?)?.split(',').map(str::to_owned).collect();
                }
                Some(_) | None => return Err(format!("unknown argument {}", name.display())),
            }
        }
        let Some(place) = place else {
            return Ok(Self::Parent(ParentOptions { input, data, writes_min, sabotage }));
        };
        let root = root.ok_or("--node needs --root")?;
        if place >= addresses.len() {
            return Err("--node needs its own place in --addresses".into());
        }
        Ok(Self::Child(ChildOptions { place, root, addresses, writes_min, sabotage }))
    }
}

fn text(value: &OsStr) -> Result<&str, String> {
    value.to_str().ok_or_else(|| format!("{} is not text", value.display()))
}

fn number(name: &OsStr, value: &OsStr) -> Result<u64, String> {
    let number = text(value)?.parse().ok().filter(|number| *number <= 1_000_000_000);
    number.ok_or_else(|| {
        format!("{} {} is not a number up to 1000000000", name.display(), value.display())
    })
}
