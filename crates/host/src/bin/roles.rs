//! Plays `init` and the container helper for the tests of this crate. The product's binary does
//! the same before anything else; Cargo hands a test only binaries of its own package. It can also
//! just be there, for a test that looks at the file it runs from.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(hangar_init::ROLE) => ExitCode::from(hangar_init::run()),
        Some(hangar_host::helper::ROLE) => ExitCode::from(hangar_host::helper::run()),
        Some("wait") => loop {
            std::thread::park();
        },
        _ => ExitCode::from(2),
    }
}
