use super::*;
use crate::machine::testing::spec;
use futures_util::StreamExt as _;
use hangar_api::id::AppName;
use hangar_api::logs::LogQuery;

fn query(app: &str, tail: usize, follow: bool) -> LogQuery {
    LogQuery {
        app: AppName::new(app).unwrap(),
        group: None,
        machine: None,
        region: None,
        tail,
        follow,
        since: None,
    }
}

#[tokio::test]
async fn lines_are_merged_cut_to_the_newest_and_followed_also_for_new_machines() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::open(dir.path(), Env::real());
    let first = spec("app1", 1);
    store.label(&first);
    for text in ["one", "two", "three"] {
        store.write(&first.id, Provider::Runner, false, 1, text);
    }
    let mut lines = store.query(query("app1", 2, true)).await.unwrap();
    assert_eq!(lines.next().await.unwrap().message, "two");
    assert_eq!(lines.next().await.unwrap().message, "three");
    let mut second = spec("app1", 1);
    second.id = MachineId::new("00000000000002").unwrap();
    store.label(&second);
    store.write(&second.id, Provider::Health, true, 1, "bad");
    let line = lines.next().await.unwrap();
    assert_eq!(
        (line.message.as_str(), line.level.as_str()),
        ("bad", "error")
    );
    assert_eq!(line.instance, second.id);
    let other = store.query(query("app2", 9, false)).await.unwrap();
    assert_eq!(other.count().await, 0);
}

#[tokio::test]
async fn the_log_of_a_destroyed_machine_is_kept_for_a_day_also_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    tokio::time::pause();
    let env = Env::simulated(1);
    let store = LogStore::open(dir.path(), env.clone());
    let spec = spec("app1", 1);
    store.label(&spec);
    store.write(&spec.id, Provider::Runner, false, 1, "gone");
    store.mark_destroyed(&spec.id);
    let store = LogStore::open(dir.path(), env);
    tokio::time::advance(KEPT - Duration::from_secs(1)).await;
    store.sweep();
    assert!(store.dir(&spec.id).exists());
    tokio::time::advance(Duration::from_secs(2)).await;
    store.sweep();
    assert!(!store.dir(&spec.id).exists());
}

#[test]
fn labels_are_neither_written_nor_read_through_a_link() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = dir.path().join("elsewhere");
    std::fs::write(&elsewhere, "untouched").unwrap();
    let store = LogStore::open(dir.path(), Env::real());
    let spec = spec("app1", 1);
    let log = store.dir(&spec.id);
    std::fs::create_dir_all(&log).unwrap();
    symlink(&elsewhere, log.join("labels.json.new")).unwrap();
    symlink(&elsewhere, log.join("labels.json")).unwrap();
    store.label(&spec);
    let text = std::fs::read_to_string(&elsewhere).unwrap();
    assert_eq!(text, "untouched");
    let mine = log.join("labels.json");
    std::fs::rename(&mine, &elsewhere).unwrap();
    symlink(&elsewhere, &mine).unwrap();
    assert!(LogStore::open(dir.path(), Env::real()).lock().is_empty());
}
