//! A registry that does as a test tells it: faults, sign-in, redirects.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a client asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
}

/// What it gets.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) end: End,
}

/// How the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    /// The connection closes in the middle.
    Cut,
    /// Nothing more comes.
    Stall,
}

/// The registry; ends when dropped.
pub(crate) struct Fake {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Answer {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::status(200, body)
    }

    pub(crate) fn status(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            end: End::Whole,
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn ending(mut self, end: End) -> Self {
        self.end = end;
        self
    }
}

/// Returns the answers of a well-behaved registry that serves one OCI layout as `IMAGE:TAG`, any.
pub(crate) fn layout(dir: &Path) -> impl Fn(&Asked) -> Answer + Send + Sync + use<> {
    let mut blobs = BTreeMap::new();
    for entry in std::fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        let name = format!("sha256:{}", entry.file_name().to_str().unwrap());
        blobs.insert(name, std::fs::read(entry.path()).unwrap());
    }
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    move |asked| {
        let last = asked.path.rsplit('/').next().unwrap();
        let digest = if last.starts_with("sha256:") {
            last
        } else {
            &manifest
        };
        match blobs.get(digest) {
            Some(bytes) => Answer::ok(bytes.clone()),
            None => Answer::status(404, ""),
        }
    }
}

impl Fake {
    pub(crate) async fn start(answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let answers = Arc::new(answers);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (log, answers) = (Arc::clone(&log), Arc::clone(&answers));
                tokio::spawn(async move {
                    let Some(asked) = read(stream).await else {
                        return;
                    };
                    log.lock().unwrap().push(asked.1.clone());
                    let answer = answers(&asked.1);
                    write(asked.0, answer).await;
                });
            }
        });
        Self { port, asked, task }
    }

    /// Returns everything that was asked for so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Returns how often a path that holds `part` was asked for.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.asked()
            .iter()
            .filter(|a| a.path.contains(part))
            .count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(mut stream: TcpStream) -> Option<(TcpStream, Asked)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1)?.to_owned();
    let authorization = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("authorization")
            .then(|| value.to_owned())
    });
    Some((
        stream,
        Asked {
            path,
            authorization,
        },
    ))
}

async fn write(mut stream: TcpStream, answer: Answer) {
    let mut head = format!(
        "HTTP/1.1 {} x\r\ncontent-length: {}\r\n",
        answer.status,
        answer.body.len()
    );
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("connection: close\r\n\r\n");
    let body = match answer.end {
        End::Whole => &answer.body[..],
        End::Cut | End::Stall => &answer.body[..answer.body.len() / 2],
    };
    // The client may be gone already.
    drop(stream.write_all(head.as_bytes()).await);
    drop(stream.write_all(body).await);
    if answer.end == End::Stall {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    drop(stream.shutdown().await);
}
