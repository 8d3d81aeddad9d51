//! What the test program does with the API from inside a Machine, and to get in its way.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

fn done(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// `ask WHERE METHOD PATH [BODY [HEADER]]`
pub(crate) fn ask(args: &[String]) -> ExitCode {
    let word = |at: usize| args.get(at).map_or("", String::as_str);
    let (body, more) = (word(4), word(5));
    let more = match more {
        "" => String::new(),
        line => format!("{line}\r\n"),
    };
    let length = body.len();
    let request = format!(
        "{} {} HTTP/1.1\r\nhost: flaps\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{more}\r\n{body}",
        word(2),
        word(3)
    );
    let limit = Some(Duration::from_secs(30));
    let mut answer = String::new();
    let asked = if word(1).starts_with('/') {
        UnixStream::connect(word(1)).and_then(|mut stream| {
            stream.set_read_timeout(limit)?;
            stream.write_all(request.as_bytes())?;
            stream.read_to_string(&mut answer)
        })
    } else {
        TcpStream::connect(word(1)).and_then(|mut stream| {
            stream.set_read_timeout(limit)?;
            stream.write_all(request.as_bytes())?;
            stream.read_to_string(&mut answer)
        })
    };
    // What was answered before the end counts, also where the end is not a good one.
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return done(asked.and_then(|_| Err(std::io::Error::other("no answer"))));
    };
    println!("{} {body}", head.split(' ').nth(1).unwrap_or_default());
    ExitCode::SUCCESS
}

pub(crate) fn act_as(args: &[String]) -> ExitCode {
    use std::os::unix::process::CommandExt as _;
    let user = args.get(1).and_then(|word| word.parse().ok()).unwrap_or(1);
    let mut command = std::process::Command::new("/testapp");
    command.args(args.iter().skip(2)).uid(user).gid(user);
    done(Err(command.exec()))
}

pub(crate) fn crowd(path: &str, count: u64) -> ExitCode {
    let all: Vec<_> = (0..count)
        .map_while(|_| UnixStream::connect(path).ok())
        .collect();
    println!("crowd of {}", all.len());
    loop {
        std::thread::park();
    }
}

pub(crate) fn chmod(mode: &str, path: &str) -> ExitCode {
    let mode = u32::from_str_radix(mode, 8).unwrap_or(0);
    done(std::fs::set_permissions(
        path,
        std::fs::Permissions::from_mode(mode),
    ))
}

pub(crate) fn block(path: &str) -> ExitCode {
    done(std::fs::remove_file(path).and_then(|()| std::fs::create_dir(path)))
}
