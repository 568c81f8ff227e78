//! Each transcript is a test of its own, named after its file.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::verbs::Script;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios"))
}

fn play(name: &str) {
    let path = folder().join(format!("{name}.txt"));
    let path = path.to_str().expect("a path in UTF-8");
    datadriven::walk(path, |file| {
        let mut script = Script::default();
        file.run(|case| script.play(&case.input));
    });
}

macro_rules! transcripts {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            play(stringify!($name));
        })*

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

transcripts! {
    aba acknowledged_and_lost old_snapshot_outlives_install restore_outlives_pruning snapshot_lost
    snapshot_older snapshot_under_load snapshot_cured snapshot_scrubbed answers_of_another_life bridge calls_end caps commit_after_blip counted
    compacted_log damage deaf_leader disk_fails divergent_tail_learns_no_commit doubled_forward
    election faith faith_in_the_same_term figure7 figure8 forward_to_former_leader handover_votes heal_in_the_same_term
    healed_stays_healed install_conflicting_suffix install_crash install_keeps_suffix
    install_late_messages isolated_asker kept_machine leader_forgotten learner_votes link_restart
    lone_damaged lone_voter nonsense partitions prevote_changes_nothing prevote_cohorts
    prevote_from_lower_term refused_votes_reset_no_timer reads reads_by_lease
    reads_end reads_of_a_new_leader reads_weaker reordered_answers replication restarts
    restore_fails slow_disks snapshot_after_silence snapshot_damaged_piece snapshot_gone
    snapshot_heals snapshot_install snapshot_jitter snapshot_kept_machine snapshot_last_index
    snapshot_meets_own snapshot_membership snapshot_of_kept_machine snapshot_overtaken snapshot_resumes
    snapshot_source_deposed snapshot_stale snapshot_tail_kept stale_log_cannot_win stalled_peer
    full_disk full_followers priority priority_down priority_hardly sick_disk sick_disk_alone
    sick_disk_resigns sick_disk_slow step_down transfer transfer_ends transfer_keeps_calls
    transfer_laggard transfer_partition transfer_refused transfer_repeated transfer_shutdown
    transfer_times_out
    stuck_candidate timers unapplied unreadable_log votes_are_sets votes_once window_lost
    window_lost_compacted wrong_disk
}

#[test]
fn every_transcript_is_a_test() {
    let files: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| {
            entry.unwrap().file_name().to_str()?.strip_suffix(".txt").map(str::to_owned)
        })
        .collect();
    let names: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(files, names);
}

#[test]
fn every_transcript_and_test_stands_in_the_table() {
    let table = std::fs::read_to_string(folder().join("README.md")).unwrap();
    for name in NAMES {
        assert!(table.contains(&format!("`{name}`")), "{name} is missing");
    }
    let sources = [
        ("cells", include_str!("cells.rs")),
        ("rules", include_str!("rules.rs")),
        ("chaos", include_str!("chaos.rs")),
    ];
    for (file, source) in sources {
        for name in table.split('`').filter_map(|word| word.strip_prefix(file)?.strip_prefix("::"))
        {
            assert!(source.contains(&format!("fn {name}(")), "{file}::{name} does not exist");
        }
    }
}
