//! Many tasks at once.

use super::{Arc, Backend, Check, RawTxn, checked, commit, get, put, text, writes};

/// Tasks at once.
const TASKS: u32 = 16;
/// What each does.
const ROUNDS: u32 = 20;

pub(super) async fn one_of_many_creates_a_key(backend: Arc<dyn Backend>) {
    for round in 0..ROUNDS {
        let key = format!("k/{round}");
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..TASKS {
            let (backend, key) = (Arc::clone(&backend), key.clone());
            tasks.spawn(async move {
                let txn = checked(
                    Check::Absent(key.as_str().into()),
                    put(&key, &task.to_string()),
                );
                backend.txn(txn).await.is_ok().then_some(task.to_string())
            });
        }
        let winners: Vec<String> = tasks.join_all().await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(text(&backend, &key).await.as_ref(), winners.first());
    }
}

pub(super) async fn no_increment_is_lost(backend: Arc<dyn Backend>) {
    commit(&backend, writes([put("n", "0")])).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let backend = Arc::clone(&backend);
        tasks.spawn(async move {
            for _ in 0..ROUNDS {
                increment(&backend).await;
            }
        });
    }
    tasks.join_all().await;
    let n = get(&backend, "n").await.expect("it was put");
    assert_eq!(&*n.value, (TASKS * ROUNDS).to_string().as_bytes());
    assert_eq!(n.mod_revision, u64::from(TASKS * ROUNDS) + 1);
}

async fn increment(backend: &Arc<dyn Backend>) {
    loop {
        let entry = get(backend, "n").await.expect("it was put");
        let number: u32 = std::str::from_utf8(&entry.value)
            .ok()
            .and_then(|text| text.parse().ok())
            .expect("it is a number");
        let check = Check::Revision("n".into(), entry.mod_revision);
        let txn = checked(check, put("n", &(number + 1).to_string()));
        match backend.txn(txn).await {
            Ok(_) => return,
            Err(error) => assert!(error.is_conflict(), "{error}"),
        }
    }
}

pub(super) async fn a_sum_is_kept_while_many_move_parts_of_it(backend: Arc<dyn Backend>) {
    let keys = ["k/0", "k/1", "k/2", "k/3"];
    commit(&backend, writes(keys.map(|key| put(key, "100")))).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4_usize {
        let backend = Arc::clone(&backend);
        tasks.spawn(async move {
            for round in 0..25 {
                let (from, to) = (keys[(task + round) % 4], keys[(task + round + 1) % 4]);
                while !moved(&backend, from, to).await {}
            }
        });
    }
    while !tasks.is_empty() {
        let page = backend.list("k/".into(), None, 10).await.expect("a list");
        let parts = page.entries.iter().map(|entry| number(&entry.value));
        assert_eq!(parts.sum::<u32>(), 400, "a page is of one moment");
        tokio::task::yield_now().await;
        while let Some(done) = tasks.try_join_next() {
            done.expect("no task panics");
        }
    }
}

async fn moved(backend: &Arc<dyn Backend>, from: &str, to: &str) -> bool {
    let source = get(backend, from).await.expect("it was put");
    let target = get(backend, to).await.expect("it was put");
    let (less, more) = (number(&source.value) - 1, number(&target.value) + 1);
    let txn = RawTxn {
        checks: vec![
            Check::Revision(from.into(), source.mod_revision),
            Check::Revision(to.into(), target.mod_revision),
        ],
        writes: vec![put(from, &less.to_string()), put(to, &more.to_string())],
    };
    backend.txn(txn).await.is_ok()
}

fn number(value: &[u8]) -> u32 {
    let text = std::str::from_utf8(value).expect("it is text");
    text.parse().expect("it is a number")
}
