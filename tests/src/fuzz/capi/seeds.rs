//! Inputs to begin with: what a program would do, and each thing that may go wrong.

use super::STEP;
use super::ops::OPS;

/// One call; arguments that are not named are zero.
fn step(name: &str, arguments: &[u8]) -> Vec<u8> {
    let op = OPS.iter().position(|(other, _)| *other == name).expect("an operation of this name");
    let mut step = vec![0; STEP];
    step[0] = op as u8;
    step[1..=arguments.len()].copy_from_slice(arguments);
    step
}

fn steps(list: &[(&str, &[u8])]) -> Vec<u8> {
    list.iter().flat_map(|(name, arguments)| step(name, arguments)).collect()
}

/// Everything that is done to a running node, whatever it is.
const USE: &[(&str, &[u8])] = &[
    ("wait", &[0, 0, 0]),
    ("queue new", &[]),
    ("propose", &[]),
    ("propose", &[0, 0, 0, 0, 200]),
    ("propose bytes", &[]),
    ("propose batch", &[0, 0, 0, 0, 1]),
    ("propose queued", &[0, 0, 0, 0, 0, 1]),
    ("propose wait", &[]),
    ("read", &[]),
    ("read queued", &[0, 0, 4]),
    ("read wait", &[]),
    ("read wait", &[0, 4, 0, 0, 1]),
    ("read wait", &[0, 4, 0, 0, 2]),
    ("read back", &[]),
    ("transfer", &[0, 0, 0, 0, 0]),
    ("transfer", &[0, 0, 0, 0, 1]),
    ("transfer", &[0, 0, 0, 0, 2]),
    ("transfer", &[0, 0, 0, 0, 3]),
    ("transfer wait", &[]),
    ("transfer wait", &[0, 0, 0, 0, 1]),
    ("state", &[]),
    ("metrics", &[]),
    ("watch", &[]),
    ("wait", &[0, 0, 1, 2]),
    ("wait", &[0, 0, 2]),
    ("wait", &[0, 0, 3]),
    ("snapshot", &[]),
    ("queue next", &[0, 3]),
    ("queue next", &[0, 3]),
    ("event", &[]),
    ("queue look", &[]),
];

/// A core that is alone, until it leads and has applied a few commands.
const CORE: &[(&str, &[u8])] = &[
    ("core look", &[]),
    ("core step", &[]),
    ("core new", &[]),
    ("core step", &[2]),
    ("core step", &[]),
    ("core step", &[4]),
    ("core step", &[]),
    ("core step", &[]),
    ("core step", &[2, 1]),
    ("core step", &[3]),
    ("core step", &[]),
    ("core step", &[0, 1]),
    ("core step", &[]),
    ("core look", &[0, 0, 0, 0, 0, 1]),
];

fn used(found: &[u8], more: &[(&str, &[u8])]) -> Vec<u8> {
    steps(&[&[("found", found)], USE, more].concat())
}

pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    // The first is as it should be, the second is not.
    let configured: &[(&str, &[u8])] = &[
        ("queue new", &[]),
        ("network", &[]),
        ("config new", &[]),
        ("config new", &[]),
        ("config text", &[1, 8, 4]),
        ("config number", &[1, 8, 9]),
        ("config bool", &[]),
        ("config place", &[]),
        ("config place", &[1, 1, 0, 1, 2]),
        ("config place", &[1, 1, 0, 2]),
        ("config look", &[]),
        ("config look", &[1]),
        ("config tell", &[0, 0, 0, 1]),
        ("config tell", &[0, 0, 0, 0]),
        ("config tell", &[0, 0, 0, 2]),
    ];
    let start_and_free: &[(&str, &[u8])] = &[
        ("start", &[]),
        ("wait", &[]),
        ("propose wait", &[]),
        ("free", &[]),
        ("config free", &[]),
    ];
    let core = |more: &[(&str, &[u8])]| steps(&[CORE, more].concat());
    let wired = |what: &[(&str, &[u8])]| {
        let after: &[(&str, &[u8])] =
            &[("propose wait", &[]), ("propose wait", &[1]), ("read back", &[])];
        steps(&[&[("found", &[5_u8][..]), ("wait", &[])], what, after].concat())
    };
    let told: Vec<Vec<u8>> =
        (0..24).map(|at| step("wires told", &[at % 3, at % 4, at % 3, at / 4, at])).collect();
    let simulated = |how: &[u8]| steps(&[("names", &[]), ("simulate", how)]);
    let mut seeds = vec![
        ("one-node", used(&[], &[("stop", &[]), ("propose", &[]), ("stop", &[]), ("free", &[])])),
        ("one-node-kv", used(&[0, 1], &[("read wait", &[0, 4, 0, 0, 4]), ("free", &[])])),
        ("one-node-counter", used(&[0, 2], &[("free", &[]), ("queue free", &[])])),
        ("own-store", used(&[0, 0, 1], &[("restart", &[]), ("read back", &[]), ("restart", &[1])])),
        ("own-store-late", used(&[0, 1, 1, 1], &[("restart", &[1]), ("read back", &[])])),
        ("own-store-twice", used(&[0, 1, 1, 2, 0, 1], &[])),
        ("own-store-fails", used(&[0, 1, 1, 3, 0, 9], &[("restart", &[])])),
        ("own-store-never", used(&[0, 1, 1, 4, 0, 9], &[("stop", &[])])),
        ("own-store-cannot-read", used(&[0, 0, 1, 5, 0, 5], &[("restart", &[])])),
        ("own-store-full", used(&[0, 1, 1, 7, 0, 5], &[])),
        (
            "directory",
            used(
                &[0, 0, 2],
                &[("snapshot", &[0, 4]), ("restart", &[]), ("read back", &[]), ("restart", &[1])],
            ),
        ),
        ("directory-cannot-restore", used(&[0, 0, 2, 0, 7], &[("restart", &[])])),
        ("machine-fails", used(&[0, 0, 0, 0, 1, 2], &[])),
        ("machine-too-few", used(&[0, 0, 0, 0, 2, 2], &[])),
        ("machine-too-many", used(&[0, 0, 0, 0, 3, 2], &[])),
        ("machine-not-made", used(&[0, 0, 0, 0, 4], &[])),
        ("machine-not-frozen", used(&[0, 0, 0, 0, 5], &[])),
        ("three-nodes", used(&[2], &[("stop", &[1]), ("propose", &[]), ("read back", &[])])),
        (
            "three-nodes-kv",
            used(&[2, 1], &[("free", &[2]), ("propose wait", &[1]), ("read back", &[])]),
        ),
        ("three-nodes-own-stores", used(&[2, 0, 1], &[("restart", &[]), ("restart", &[1])])),
        ("two-nodes", used(&[3, 1], &[("stop", &[1]), ("propose wait", &[]), ("read back", &[])])),
        (
            "three-nodes-tcp",
            used(&[4, 1], &[("stop", &[1]), ("propose wait", &[]), ("read back", &[])]),
        ),
        ("own-wires", used(&[5], &[("stop", &[1]), ("propose wait", &[]), ("read back", &[])])),
        ("own-wires-lose", wired(&[("wires happen", &[1, 200])])),
        ("own-wires-double", wired(&[("wires happen", &[2, 200])])),
        ("own-wires-garble", wired(&[("wires happen", &[3, 3])])),
        ("own-wires-fail", wired(&[("wires happen", &[4, 2])])),
        ("own-wires-one-by-one", wired(&[("wires happen", &[5, 200])])),
        ("own-wires-cut", wired(&[("wires cut", &[1]), ("settle", &[3]), ("wires cut", &[])])),
        ("own-wires-told", [steps(&[("found", &[5]), ("wait", &[])]), told.concat()].concat()),
        ("freed-in-flight", used(&[], &[("propose", &[]), ("propose queued", &[]), ("free", &[])])),
        (
            "queue-closed",
            used(&[], &[("propose queued", &[]), ("queue close", &[]), ("queue next", &[])]),
        ),
        ("configured", steps(&[configured, start_and_free].concat())),
        (
            "tcp",
            steps(
                &[configured, &[("start", &[0, 1]), ("propose", &[]), ("wait", &[0, 0, 3])]]
                    .concat(),
            ),
        ),
        (
            "listener",
            steps(&[configured, &[("start", &[0, 5]), ("wait", &[]), ("stop", &[])]].concat()),
        ),
        ("core", core(&[("core step", &[5, 1]), ("core step", &[1]), ("core step", &[8, 0])])),
        (
            "core-snapshot",
            core(&[
                ("core step", &[6]),
                ("core step", &[7]),
                ("core step", &[]),
                ("core new", &[]),
            ]),
        ),
        ("core-again", core(&[("core free", &[]), ("core new", &[0, 1]), ("core step", &[])])),
        (
            "core-wrong-record",
            core(&[("core new", &[0, 0, 244]), ("core new", &[0, 0, 241]), ("core new", &[])]),
        ),
        ("core-disk-fails", core(&[("core step", &[13]), ("core look", &[])])),
        ("simulated", simulated(&[1, 1 | 4 | 8])),
        ("simulated-drawn", simulated(&[2, 1, 0, 1, 7])),
        ("simulated-machine-fails", simulated(&[3, 1, 3])),
        ("simulated-machine-not-made", simulated(&[4, 0x20, 2])),
        ("simulated-workload-fails", simulated(&[5, 1, 0, 2])),
        ("simulated-workload-too-large", simulated(&[6, 1, 0, 3])),
        (
            "own-store-as-it-comes",
            steps(
                &[configured, &[("config storage", &[]), ("bootstrap", &[])], start_and_free]
                    .concat(),
            ),
        ),
    ];
    let three: Vec<Vec<u8>> = (0..3)
        .flat_map(|node| {
            let moves =
                [step("transfer wait", &[node, 0, 3]), step("transfer wait", &[node, 0, 3, 0, 1])];
            [vec![step("wait", &[node])], moves.to_vec(), vec![step("propose wait", &[node])]]
                .concat()
        })
        .collect();
    let moved = [step("found", &[2]), three.concat(), three.concat(), step("read back", &[])];
    let commands: Vec<Vec<u8>> = (0..7).map(|which| step("kv command", &[which])).collect();
    let answered = [
        commands.concat(),
        steps(&[
            ("bytes new", &[]),
            ("bytes new", &[0, 1]),
            ("kv answer", &[]),
            ("bytes free", &[]),
            ("names", &[]),
            ("conformance", &[]),
            ("conformance", &[1]),
            ("conformance", &[2]),
        ]),
    ];
    seeds.push(("kv-and-names", answered.concat()));
    // A scan's answer, read: whichever of the bytes each is.
    let asked: Vec<Vec<u8>> = (0..8).map(|at| step("read wait", &[0, 4, 0, 0, 4, at])).collect();
    let answers: Vec<Vec<u8>> =
        (0..16).map(|at| step("kv answer", &[at % 8, 0, 0, at, 0, 1])).collect();
    let scan = step("kv command", &[5, 254, 0, 0, 3]);
    let scanned = [
        steps(&[("found", &[0, 1]), ("propose wait", &[])]),
        scan,
        asked.concat(),
        answers.concat(),
    ];
    seeds.push(("kv-scan", scanned.concat()));
    seeds.push(("leadership-moves", moved.concat()));
    let refused: Vec<Vec<u8>> = (0..15).map(|at| step("core step", &[14, at])).collect();
    seeds.push(("core-refused", [steps(CORE), refused.concat()].concat()));
    seeds.push(("conformance", step("conformance", &[0, 77])));
    seeds.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}
