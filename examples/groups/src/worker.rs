//! The `worker` group: counts, and tells what it has counted on port 7000.

use std::io::Write;
use std::net::{Ipv6Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The port on the private network.
pub(crate) const PORT: u16 = 7000;

/// Counts ten times a second until the Machine is stopped.
pub(crate) fn run() -> std::io::Result<()> {
    let count = Arc::new(AtomicU64::new(0));
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
    crate::say(&format!("counting; ask on port {PORT}"));
    let told = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let counted = told.load(Ordering::Relaxed);
            // Whoever asked may be gone already; the next one asks again.
            if let Err(error) = writeln!(stream, "{counted}") {
                crate::say(&format!("could not answer: {error}"));
            }
        }
    });
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let counted = count.fetch_add(1, Ordering::Relaxed) + 1;
        if counted.is_multiple_of(100) {
            crate::say(&format!("counted to {counted}"));
        }
    }
}
