//! The app that the end-to-end tests deploy: one static program that can be told to behave in
//! every way a Machine's program may. It is static, so its image holds only itself.
//!
//! ```text
//! testapp serve [PORT]        HTTP/1.1 with keep-alive; see `answer`
//! testapp slow MS             serves on 8080 after MS milliseconds
//! testapp told PORT           answers each connection with the first line that it hears
//! testapp secure PORT         answers each connection over TLS with 200, certificate its own
//! testapp datagrams PORT      sends each datagram back, with its sender's address before it
//! testapp late MS             serves, and exits with 1 after MS milliseconds
//! testapp lines N PAUSE_MS    prints N numbered lines, then waits for ever
//! testapp exit CODE [MS]      exits with CODE after MS milliseconds
//! testapp connect ADDR:PORT   exits 0 when a TCP connection is made within 2 s
//! testapp say ADDR:PORT TEXT  sends a UDP datagram
//! testapp resolve NAME        prints the AAAA addresses of NAME
//! testapp eat MB              takes so much memory, then waits
//! testapp sick | well         makes `/health` of the Machine fail or pass
//! testapp gateways            prints the addresses of default gateways
//! testapp env                 prints its environment
//! testapp has PATH            exits 0 when there is such a file
//! testapp ask WHERE METHOD PATH [BODY [HEADER]]
//!                             asks over HTTP, prints status and body; WHERE is a socket's path
//!                             or ADDR:PORT
//! testapp as UID WORD...      does WORD... as that user and group
//! testapp chmod MODE PATH     sets an octal mode
//! testapp block PATH          puts a directory in the place of a file
//! testapp crowd PATH N        makes N connections to a socket, says so, and keeps them
//! testapp zombies             leaves orphans behind, then waits
//! ```
#![expect(clippy::print_stdout, reason = "standard output is the app's log")]

#[path = "testapp/inside.rs"]
mod inside;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

static REQUESTS: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let word = |at: usize| args.get(at).map_or("", String::as_str);
    let number = |at: usize| word(at).parse::<u64>().unwrap_or(0);
    match word(0) {
        "serve" => serve(if word(1).is_empty() {
            8080
        } else {
            u16::try_from(number(1)).unwrap_or(8080)
        }),
        "slow" => {
            std::thread::sleep(Duration::from_millis(number(1)));
            serve(8080)
        }
        "told" => told(u16::try_from(number(1)).unwrap_or(0)),
        "secure" => secure(u16::try_from(number(1)).unwrap_or(0)),
        "datagrams" => datagrams(u16::try_from(number(1)).unwrap_or(0)),
        "late" => {
            std::thread::spawn(|| serve(8080));
            std::thread::sleep(Duration::from_millis(number(1)));
            ExitCode::FAILURE
        }
        "lines" => lines(number(1), number(2)),
        "exit" => {
            std::thread::sleep(Duration::from_millis(number(2)));
            println!("exiting with {}", number(1));
            ExitCode::from(u8::try_from(number(1)).unwrap_or(1))
        }
        "connect" => connect(word(1)),
        "say" => say(word(1), word(2)),
        "resolve" => resolve(word(1)),
        "eat" => eat(number(1)),
        "sick" | "well" => health(word(0) == "sick"),
        "gateways" => gateways(),
        "env" => {
            println!("{}", variables());
            ExitCode::SUCCESS
        }
        "has" => ExitCode::from(u8::from(!std::path::Path::new(word(1)).exists())),
        "ask" => inside::ask(&args),
        "as" => inside::act_as(&args),
        "chmod" => inside::chmod(word(1), word(2)),
        "block" => inside::block(word(1)),
        "crowd" => inside::crowd(word(1), number(2)),
        "zombies" => zombies(),
        "orphan" => orphan(),
        other => {
            println!("testapp: unknown word {other:?}");
            ExitCode::from(2)
        }
    }
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn variables() -> String {
    let all = std::env::vars().map(|(name, value)| format!("{name}={value}"));
    let mut all: Vec<String> = all.collect();
    all.sort();
    all.join("\n")
}

/// Does the same with each connection to a port.
fn each(port: u16, mut answer: impl FnMut(TcpStream) -> std::io::Result<()>) -> ExitCode {
    let listener = match TcpListener::bind(("0.0.0.0", port)) {
        Ok(listener) => listener,
        Err(error) => {
            println!("cannot listen on {port}: {error}");
            return ExitCode::FAILURE;
        }
    };
    for stream in listener.incoming().flatten() {
        // A client that goes away is no news.
        let _gone = answer(stream);
    }
    ExitCode::SUCCESS
}

fn told(port: u16) -> ExitCode {
    each(port, |stream| {
        let mut line = String::new();
        BufReader::new(stream.try_clone()?).read_line(&mut line)?;
        (&stream).write_all(line.as_bytes())
    })
}

fn secure(port: u16) -> ExitCode {
    use tokio_rustls::rustls;
    let Ok(made) = rcgen::generate_simple_self_signed(vec!["app.example".to_owned()]) else {
        return ExitCode::FAILURE;
    };
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(vec![made.cert.der().clone()], key.into()));
    let Ok(config) = config.map(std::sync::Arc::new) else {
        return ExitCode::FAILURE;
    };
    each(port, |mut stream| {
        let session = rustls::ServerConnection::new(config.clone());
        let mut session = session.map_err(std::io::Error::other)?;
        let mut tls = rustls::Stream::new(&mut session, &mut stream);
        let _asked = tls.read(&mut [0; 1024])?;
        tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret")
    })
}

fn datagrams(port: u16) -> ExitCode {
    let Ok(socket) = UdpSocket::bind(("fly-global-services", port)) else {
        println!("cannot bind fly-global-services:{port}");
        return ExitCode::FAILURE;
    };
    println!("takes datagrams on {port}");
    let mut bytes = vec![0; 65_536];
    while let Ok((count, from)) = socket.recv_from(&mut bytes) {
        let mut answer = format!("{from} ").into_bytes();
        answer.extend(bytes.get(..count).unwrap_or_default());
        let _gone = socket.send_to(&answer, from);
    }
    ExitCode::SUCCESS
}

fn wait_for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

fn eat(megabytes: u64) -> ExitCode {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    for _ in 0..megabytes {
        eaten.push(vec![1; 1 << 20]);
    }
    println!("ate {} MB", eaten.len());
    wait_for_ever()
}

fn health(sick: bool) -> ExitCode {
    let file = std::path::Path::new("/tmp/sick");
    let done = if sick {
        std::fs::write(file, b"")
    } else {
        std::fs::remove_file(file)
    };
    ExitCode::from(u8::from(done.is_err()))
}

fn gateways() -> ExitCode {
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    for line in routes.lines().skip(1) {
        let mut words = line.split_whitespace().skip(1);
        let (to, gateway) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if to == "00000000"
            && let Ok(address) = u32::from_str_radix(gateway, 16)
        {
            println!("{}", std::net::Ipv4Addr::from(address.to_le_bytes()));
        }
    }
    ExitCode::SUCCESS
}

fn lines(count: u64, pause: u64) -> ExitCode {
    for line in 0..count {
        println!("line {line}");
        std::thread::sleep(Duration::from_millis(pause));
    }
    wait_for_ever()
}

fn zombies() -> ExitCode {
    // Each child leaves a grandchild behind and ends: PID 1 inherits it and must reap it.
    let myself = std::env::current_exe().unwrap_or_default();
    for _ in 0..3 {
        let child = std::process::Command::new(&myself).args(["orphan"]).spawn();
        if let Ok(mut child) = child {
            let _ended = child.wait();
        }
    }
    println!("left three orphans");
    wait_for_ever()
}

fn orphan() -> ExitCode {
    let myself = std::env::current_exe().unwrap_or_default();
    let _left = std::process::Command::new(myself)
        .args(["exit", "0", "50"])
        .spawn();
    ExitCode::SUCCESS
}

fn connect(address: &str) -> ExitCode {
    let Ok(address) = address.parse::<SocketAddr>() else {
        println!("not an address: {address}");
        return ExitCode::from(2);
    };
    match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
        Ok(_) => {
            println!("connected");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("not connected: {error}");
            ExitCode::FAILURE
        }
    }
}

fn say(address: &str, text: &str) -> ExitCode {
    let sent = address.parse::<SocketAddr>().map(|to| {
        let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        UdpSocket::bind(any).and_then(|socket| socket.send_to(text.as_bytes(), to))
    });
    match sent {
        Ok(Ok(_)) => ExitCode::SUCCESS,
        other => {
            println!("not sent: {other:?}");
            ExitCode::FAILURE
        }
    }
}

fn resolve(name: &str) -> ExitCode {
    let config = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let server = config.lines().find_map(|line| {
        line.strip_prefix("nameserver ")?
            .trim()
            .parse::<IpAddr>()
            .ok()
    });
    let Some(server) = server else {
        println!("no nameserver");
        return ExitCode::FAILURE;
    };
    match ask(server, name) {
        Ok(addresses) => {
            for address in &addresses {
                println!("{address}");
            }
            if addresses.is_empty() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            }
        }
        Err(error) => {
            println!("no answer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(server: IpAddr, name: &str) -> std::io::Result<Vec<Ipv6Addr>> {
    let socket = UdpSocket::bind(if server.is_ipv6() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    })?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    socket.connect((server, 53))?;
    let mut packet = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap_or(0));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 28, 0, 1]);
    let header = packet.len();
    socket.send(&packet)?;
    let mut answer = vec![0; 4096];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    // Every answer record is an AAAA with 16 bytes: find them behind their fixed head.
    let mut found = Vec::new();
    let mut at = header;
    while let Some(place) = answer
        .get(at..)
        .and_then(|rest| rest.windows(4).position(|w| w == [0, 28, 0, 1]))
    {
        let data = at + place + 10;
        if let Some(bytes) = answer
            .get(data..data + 16)
            .and_then(|b| <[u8; 16]>::try_from(b).ok())
        {
            found.push(Ipv6Addr::from(bytes));
        }
        at = data;
    }
    Ok(found)
}

fn serve(port: u16) -> ExitCode {
    std::thread::sleep(Duration::from_millis(env("DELAY_MS").parse().unwrap_or(0)));
    let bind = env("BIND");
    let host = match (bind.as_str(), env("LOOPBACK_ONLY").is_empty()) {
        ("", true) => "0.0.0.0",
        ("", false) => "127.0.0.1",
        (address, _) => address,
    };
    let listener = match TcpListener::bind((host, port)) {
        Ok(listener) => listener,
        Err(error) => {
            println!("cannot listen on {port}: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("listening on {host}:{port}");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            // A client that goes away is no news.
            let _gone = client(stream);
        });
    }
    ExitCode::SUCCESS
}

fn client(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let (mut length, mut key, mut heads) = (0_u64, None, String::new());
        let mut last = false;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
            heads.push_str(&header);
            last |= header.trim().eq_ignore_ascii_case("connection: close");
            if let Some((name, value)) = header.split_once(':') {
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().unwrap_or(0);
                }
                if name.eq_ignore_ascii_case("sec-websocket-key") {
                    key = Some(value.trim().to_owned());
                }
            }
        }
        if let Some(key) = key {
            return websocket(&key, reader, writer);
        }
        let mut body = Vec::new();
        (&mut reader).take(length).read_to_end(&mut body)?;
        let mut words = line.split_whitespace();
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or("/"));
        let (status, text) = match path {
            "/headers" => ("200 OK", heads),
            _ => answer(method, path, &body),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        writer.write_all(&[head.as_bytes(), text.as_bytes()].concat())?;
        if last {
            return Ok(());
        }
    }
}

fn answer(method: &str, path: &str, body: &[u8]) -> (&'static str, String) {
    let query = |name: &str| {
        path.split(['?', '&'])
            .find_map(|p| p.strip_prefix(name))
            .unwrap_or("")
            .to_owned()
    };
    if path.starts_with("/health") {
        let sick = !env("UNHEALTHY").is_empty() || std::path::Path::new("/tmp/sick").exists();
        return if sick {
            ("500 Sick", "sick".to_owned())
        } else {
            ("200 OK", "ok".to_owned())
        };
    }
    if path.starts_with("/exit") {
        #[expect(clippy::exit, reason = "this is what was asked for")]
        std::process::exit(query("code=").parse().unwrap_or(1));
    }
    if path.starts_with("/slow") {
        std::thread::sleep(Duration::from_millis(query("ms=").parse().unwrap_or(100)));
    }
    if path.starts_with("/bytes") {
        let count = query("n=").parse().unwrap_or(0);
        return ("200 OK", "b".repeat(count));
    }
    if path.starts_with("/env") {
        return ("200 OK", variables());
    }
    if method == "POST" {
        let sum: u64 = body.iter().map(|b| u64::from(*b)).sum();
        return ("200 OK", format!("{} {sum}", body.len()));
    }
    let count = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
    let (group, machine, region, version) = (
        env("FLY_PROCESS_GROUP"),
        env("FLY_MACHINE_ID"),
        env("FLY_REGION"),
        env("VERSION"),
    );
    (
        "200 OK",
        format!(
            "{{\"group\":\"{group}\",\"machine\":\"{machine}\",\"region\":\"{region}\",\"version\":\"{version}\",\"count\":{count}}}"
        ),
    )
}

/// Echoes text frames of up to 125 bytes, as a WebSocket.
fn websocket(
    key: &str,
    mut reader: BufReader<TcpStream>,
    mut writer: TcpStream,
) -> std::io::Result<()> {
    let accept = base64(&sha1(
        format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
    ));
    write!(
        writer,
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    )?;
    loop {
        let mut head = [0; 2];
        reader.read_exact(&mut head)?;
        let length = usize::from(head[1] & 0x7f);
        let mut mask = [0; 4];
        reader.read_exact(&mut mask)?;
        let mut data = vec![0; length];
        reader.read_exact(&mut data)?;
        for (at, byte) in data.iter_mut().enumerate() {
            *byte ^= mask[at % 4];
        }
        writer.write_all(&[&[head[0], head[1] & 0x7f][..], &data].concat())?;
        if head[0] & 0x0f == 8 {
            return Ok(());
        }
    }
}

fn sha1(data: &[u8]) -> [u8; 20] {
    let mut h: [u32; 5] = [
        0x6745_2301,
        0xEFCD_AB89,
        0x98BA_DCFE,
        0x1032_5476,
        0xC3D2_E1F0,
    ];
    let mut padded = data.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(data.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks(64) {
        let mut w = [0_u32; 80];
        for (i, word) in block.chunks(4).enumerate() {
            w[i] = u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
        }
        for i in 16..80 {
            w[i] = (w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = h;
        for (i, word) in w.iter().enumerate() {
            let (f, k) = match i {
                0..20 => ((b & c) | (!b & d), 0x5A82_7999),
                20..40 => (b ^ c ^ d, 0x6ED9_EBA1),
                40..60 => ((b & c) | (b & d) | (c & d), 0x8F1B_BCDC),
                _ => (b ^ c ^ d, 0xCA62_C1D6),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(f)
                .wrapping_add(e)
                .wrapping_add(k)
                .wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, part) in h.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    let mut out = [0; 20];
    for (at, word) in h.iter().enumerate() {
        out[at * 4..at * 4 + 4].copy_from_slice(&word.to_be_bytes());
    }
    out
}

fn base64(data: &[u8]) -> String {
    const TABLE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in data.chunks(3) {
        let n = chunk
            .iter()
            .chain([&0, &0])
            .take(3)
            .fold(0_usize, |n, b| n << 8 | usize::from(*b));
        for at in 0..4 {
            let letter = if at <= chunk.len() {
                TABLE[n >> (18 - 6 * at) & 63]
            } else {
                b'='
            };
            out.push(char::from(letter));
        }
    }
    out
}
