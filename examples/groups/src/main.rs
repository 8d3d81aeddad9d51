//! The example app: one program, three process groups.
//!
//! `web` answers HTTP on port 8080 with its group, Machine and region, and asks `worker`, by its
//! `.internal` name, what it has counted. `worker` counts and tells whoever connects to port
//! 7000. `cron` wakes up now and then. The standard library is all it needs, so its image holds
//! this one file.

mod dns;
mod web;
mod worker;

use std::time::Duration;

fn main() -> std::process::ExitCode {
    let group = std::env::args().nth(1).unwrap_or_default();
    let outcome = match group.as_str() {
        "web" => web::run(),
        "worker" => worker::run(),
        "cron" => cron(),
        other => Err(std::io::Error::other(format!(
            "unknown group {other:?}: use web, worker or cron"
        ))),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{group}: {error}"));
            std::process::ExitCode::FAILURE
        }
    }
}

fn cron() -> std::io::Result<()> {
    for round in 1_u64.. {
        say(&format!("round {round}: nothing to sweep"));
        std::thread::sleep(Duration::from_secs(30));
    }
    Ok(())
}

/// Writes one line to the app's log.
#[expect(clippy::print_stdout, reason = "standard output is the app's log")]
fn say(line: &str) {
    println!("{line}");
}

/// Returns an environment variable of the Machine, or "?" outside one.
fn machine(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| "?".to_owned())
}
