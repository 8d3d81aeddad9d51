//! Tests of unpacking: what overlayfs needs comes out, and nothing gets out.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A layer's directory beside a directory that nothing may touch.
struct Bench {
    dir: TempDir,
}

impl Bench {
    /// Returns nothing, aloud, where layers cannot be unpacked.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("layer")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), "untouched").unwrap();
        Some(Self { dir })
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join("layer").join(inside)
    }

    fn unpack(&self, layer: &[u8]) -> Result<Unpacked, ImageError> {
        unpack(layer, &self.path(""))
    }

    fn assert_outside_untouched(&self) {
        let outside = self.dir.path().join("outside");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        let meta = fs::metadata(outside.join("secret")).unwrap();
        assert_eq!(
            fs::read_to_string(outside.join("secret")).unwrap(),
            "untouched"
        );
        assert_eq!((meta.nlink(), meta.mode() & 0o7777), (1, 0o644));
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2);
    }

    fn opaque(&self, inside: &str) -> bool {
        let mut value = [0; 8];
        rustix::fs::lgetxattr(self.path(inside), "trusted.overlay.opaque", &mut value) == Ok(1)
    }

    fn is_whiteout(&self, inside: &str) -> bool {
        let meta = fs::symlink_metadata(self.path(inside)).unwrap();
        meta.file_type().is_char_device() && meta.rdev() == 0
    }
}

/// Puts raw entries together, also such as no proper tool would write.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(mut self, path: &[u8], kind: u8, link: &[u8], mode: u32, content: &[u8]) -> Self {
        let mut header = ::tar::Header::new_gnu();
        let raw = header.as_old_mut();
        raw.name[..path.len()].copy_from_slice(path);
        raw.linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(::tar::EntryType::new(kind));
        header.set_mode(mode);
        header.set_uid(1234);
        header.set_gid(4321);
        header.set_mtime(1_000_000_000);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_size(content.len().try_into().unwrap());
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.add(path.as_bytes(), b'0', b"", 0o640, content.as_bytes())
    }

    fn dir(self, path: &str) -> Self {
        self.add(path.as_bytes(), b'5', b"", 0o755, b"")
    }

    fn symlink(self, path: &str, to: &str) -> Self {
        self.add(path.as_bytes(), b'2', to.as_bytes(), 0o777, b"")
    }

    fn hardlink(self, path: &str, to: &str) -> Self {
        self.add(path.as_bytes(), b'1', to.as_bytes(), 0o640, b"")
    }

    fn pax(self, pairs: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in pairs {
            let rest = key.len() + value.len() + 3;
            let mut len = rest + 1;
            while len != rest + len.to_string().len() {
                len = rest + len.to_string().len();
            }
            write!(data, "{len} {key}=").unwrap();
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.add(b"pax", b'x', b"", 0o644, &data)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

#[test]
fn files_keep_owner_mode_time_links_and_attributes() {
    let Some(bench) = Bench::new() else { return };
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = Tar::default()
        .add(b"./", b'5', b"", 0o711, b"")
        .pax(&[
            ("mtime", b"1500000000.25"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.note", b"hello"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ])
        .add(b"bin/su", b'0', b"", 0o4755, b"program")
        .hardlink("bin/su2", "/bin/su")
        .symlink("bin/su3", "../bin/su")
        .add(b"run/fifo", b'6', b"", 0o620, b"")
        .dir("bin/")
        .end();
    let done = bench.unpack(&layer).unwrap();
    assert_eq!((done.entries, done.bytes), (6, 7));

    let su = fs::metadata(bench.path("bin/su")).unwrap();
    assert_eq!(
        (su.mode() & 0o7777, su.uid(), su.gid(), su.nlink()),
        (0o4755, 1234, 4321, 2)
    );
    assert_eq!((su.mtime(), su.mtime_nsec()), (1_500_000_000, 250_000_000));
    let mut value = [0; 64];
    let path = bench.path("bin/su");
    assert_eq!(
        rustix::fs::lgetxattr(&path, "security.capability", &mut value),
        Ok(20)
    );
    assert_eq!(rustix::fs::lgetxattr(&path, "user.note", &mut value), Ok(5));
    assert!(rustix::fs::lgetxattr(&path, "trusted.overlay.redirect", &mut value).is_err());
    assert_eq!(
        fs::read_link(bench.path("bin/su3")).unwrap(),
        PathBuf::from("../bin/su")
    );
    assert_eq!(
        fs::symlink_metadata(bench.path("bin/su3")).unwrap().uid(),
        1234
    );
    let fifo = fs::metadata(bench.path("run/fifo")).unwrap();
    assert!(fifo.file_type().is_fifo());
    assert_eq!(fifo.mode() & 0o7777, 0o620);
    // Listed directories get their own attributes, implied ones root's.
    let bin = fs::metadata(bench.path("bin")).unwrap();
    assert_eq!((bin.uid(), bin.mtime()), (1234, 1_000_000_000));
    let run = fs::metadata(bench.path("run")).unwrap();
    assert_eq!((run.uid(), run.mode() & 0o7777), (0, 0o755));
    assert_eq!(fs::metadata(bench.path("")).unwrap().mode() & 0o7777, 0o711);
}

#[test]
fn removals_become_what_overlayfs_understands() {
    let Some(bench) = Bench::new() else { return };
    let layer = Tar::default()
        .file("etc/.wh.passwd", "")
        .dir("var/cache/")
        .file("var/cache/.wh..wh..opq", "")
        .file("var/cache/new", "x")
        // Removed and made anew, in both orders, also by what is put into it.
        .file(".wh.opt", "")
        .dir("opt/")
        .dir("srv/")
        .file(".wh.srv", "")
        .file(".wh.home", "")
        .file("home/me/file", "x")
        .file(".wh..wh.plnk", "")
        .file(".wh.kept", "")
        .file("kept", "new")
        .end();
    let done = bench.unpack(&layer).unwrap();
    assert!(!done.opaque_root);
    assert!(bench.is_whiteout("etc/passwd"));
    for dir in ["var/cache", "opt", "srv", "home"] {
        assert!(bench.opaque(dir), "{dir}");
    }
    assert!(!bench.opaque("etc") && !bench.opaque("home/me"));
    assert_eq!(fs::read_to_string(bench.path("kept")).unwrap(), "new");
    let names: Vec<_> = fs::read_dir(bench.path("")).unwrap().collect();
    assert_eq!(names.len(), 6, "{names:?}");
}

#[test]
fn a_layer_that_hides_everything_below_says_so() {
    let Some(bench) = Bench::new() else { return };
    let layer = Tar::default().file(".wh..wh..opq", "").file("a", "x").end();
    assert!(bench.unpack(&layer).unwrap().opaque_root);
}

#[test]
fn later_entries_replace_earlier_ones() {
    let Some(bench) = Bench::new() else { return };
    let layer = Tar::default()
        .file("a/b/c", "old")
        .file("a", "now a file")
        .symlink("l", "/nowhere")
        .file("l", "now a file")
        .file("f", "x")
        .dir("f/")
        .end();
    bench.unpack(&layer).unwrap();
    assert_eq!(fs::read_to_string(bench.path("a")).unwrap(), "now a file");
    assert!(fs::symlink_metadata(bench.path("l")).unwrap().is_file());
    assert!(fs::symlink_metadata(bench.path("f")).unwrap().is_dir());
}

/// Layers that try to get out by names of their own.
fn evil_names() -> Vec<(&'static str, Tar)> {
    let tar = Tar::default;
    vec![
        ("dotdot", tar().file("../outside/new", "x")),
        ("absolute", tar().file("/../../outside/new", "x")),
        ("whiteout", tar().file("../outside/.wh.secret", "")),
        ("whiteout of the parent", tar().file(".wh...", "")),
        ("device", tar().add(b"null", b'3', b"", 0o666, b"")),
        ("hard link", tar().hardlink("h", "../outside/secret")),
    ]
}

/// Layers that try to get out over links.
fn evil_links() -> Vec<(&'static str, Tar)> {
    let link = |to: &str| Tar::default().symlink("s", to);
    vec![
        ("parent", link("../outside").file("s/new", "x")),
        (
            "parent of parents",
            link("..").symlink("s/s", "..").file("s/s/outside/new", "x"),
        ),
        ("opaque", link("../outside").file("s/.wh..wh..opq", "")),
        ("final", link("../outside/secret").file("s", "x")),
        (
            "hard link below",
            link("../outside").hardlink("h", "s/secret"),
        ),
        (
            "hard link to it",
            link("../outside/secret").hardlink("h", "s").file("h", "x"),
        ),
    ]
}

#[test]
fn nothing_gets_out_by_names_or_links() {
    for (what, layer) in evil_names().into_iter().chain(evil_links()) {
        let Some(bench) = Bench::new() else { return };
        let outcome = bench.unpack(&layer.end());
        bench.assert_outside_untouched();
        if let Err(error) = outcome {
            let text = error.to_string();
            assert!(
                text.starts_with("a layer is broken: its path"),
                "{what}: {text}"
            );
        }
    }
}

#[test]
fn a_symlink_to_an_absolute_directory_leads_inside_the_layer() {
    let Some(bench) = Bench::new() else { return };
    let layer = Tar::default()
        .dir("usr/lib/")
        .symlink("lib", "/usr/lib")
        .file("lib/libc.so", "x")
        .end();
    bench.unpack(&layer).unwrap();
    assert!(bench.path("usr/lib/libc.so").is_file());
}

#[test]
fn ever_deeper_links_are_refused() {
    let Some(bench) = Bench::new() else { return };
    let deep = "d/".repeat(40);
    let mut tar = Tar::default().dir(&deep).symlink("l0", &deep);
    for n in 0..10 {
        tar = tar
            .dir(&format!("l{n}/{deep}"))
            .symlink(&format!("l{}", n + 1), &format!("l{n}/{deep}"));
    }
    let error = bench.unpack(&tar.end()).unwrap_err().to_string();
    assert!(error.contains("broken"), "{error}");
}

#[test]
fn plain_and_gzip_give_the_same_directory_and_zstd_is_refused_in_words() {
    let plain = Tar::default().file("a", "x").end();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&plain).unwrap();
    // Some tools write several members one after another.
    let mut two = gzip.finish().unwrap();
    let mut tail = GzEncoder::new(Vec::new(), Compression::fast());
    tail.write_all(&[0; 512]).unwrap();
    two.extend(tail.finish().unwrap());
    let Some(one) = Bench::new() else { return };
    let Some(other) = Bench::new() else { return };
    let long: Vec<u8> = plain.iter().copied().chain([0; 512]).collect();
    let (a, b) = (one.unpack(&long).unwrap(), other.unpack(&two).unwrap());
    assert_eq!(a.diff_id, Digest::of(&long));
    assert_eq!(b.diff_id, a.diff_id);
    assert_eq!(
        (b.blob, b.blob_bytes),
        (Digest::of(&two), two.len().try_into().unwrap())
    );
    let error = one
        .unpack(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0])
        .unwrap_err()
        .to_string();
    assert!(error.contains("zstd"), "{error}");
}

#[test]
fn long_names_and_big_numbers_are_read() {
    let Some(bench) = Bench::new() else { return };
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(150));
    let other = format!("{}x", long);
    let layer = Tar::default()
        .pax(&[
            ("path", long.as_bytes()),
            ("uid", b"4000000"),
            ("size", b"3"),
        ])
        .file("short", "abc")
        .add(
            b"././@LongLink",
            b'L',
            b"",
            0,
            format!("{other}\0").as_bytes(),
        )
        .file("short", "de")
        .end();
    bench.unpack(&layer).unwrap();
    assert_eq!(fs::metadata(bench.path(&long)).unwrap().uid(), 4_000_000);
    assert_eq!(fs::read_to_string(bench.path(&other)).unwrap(), "de");
}

#[test]
fn broken_streams_are_refused_in_words() {
    let good = Tar::default().file("a", &"x".repeat(2000)).end();
    let mut flipped = good.clone();
    flipped[3] ^= 1;
    let mut claims = Tar::default().add(b"x", b'L', b"", 0, b"").end();
    let header: &mut [u8; 512] = claims.first_chunk_mut().unwrap();
    let mut big = ::tar::Header::from_byte_slice(header).clone();
    big.set_size(1 << 40);
    big.set_cksum();
    claims[..512].copy_from_slice(big.as_bytes());
    let cases: [(&[u8], &str); 5] = [
        (&good[..700], "ends inside"),
        (&good[..100], "ends inside"),
        (&flipped, "checksum"),
        (&claims, "claims"),
        (&[0x1f, 0x8b, 8, 0, 1, 2, 3], "broken"),
    ];
    for (layer, word) in cases {
        let Some(bench) = Bench::new() else { return };
        let error = bench.unpack(layer).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
        bench.assert_outside_untouched();
    }
}

fn any_path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[abc]",
        2 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just("outside".to_owned()),
        1 => Just("secret".to_owned()),
        1 => "\\.wh\\.[abc]",
        1 => Just(".wh..wh..opq".to_owned()),
    ];
    (any::<bool>(), proptest::collection::vec(part, 1..5))
        .prop_map(|(slash, parts)| format!("{}{}", if slash { "/" } else { "" }, parts.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_sequence_of_entries_escapes(
        entries in proptest::collection::vec((any_path(), any_path(), 0_u8..8), 1..12),
    ) {
        let Some(bench) = Bench::new() else { return Ok(()) };
        let mut tar = Tar::default();
        for (path, link, kind) in entries {
            tar = tar.add(path.as_bytes(), b'0' + kind, link.as_bytes(), 0o644, b"");
        }
        drop(bench.unpack(&tar.end()));
        bench.assert_outside_untouched();
    }

    #[test]
    fn arbitrary_bytes_are_an_error_or_a_layer(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        at in 0_usize..2048,
    ) {
        let Some(bench) = Bench::new() else { return Ok(()) };
        drop(bench.unpack(&bytes));
        let mut layer = Tar::default().dir("a/").file("a/b", "text").symlink("c", "a").end();
        for (to, from) in layer.iter_mut().skip(at).zip(&bytes) {
            *to = *from;
        }
        drop(bench.unpack(&layer));
        bench.assert_outside_untouched();
    }
}

#[test]
fn times_before_1970_and_fractions_are_read() {
    let cases: BTreeMap<&str, (i64, u32)> = BTreeMap::from([
        ("10", (10, 0)),
        ("10.5", (10, 500_000_000)),
        ("-10", (-10, 0)),
        ("-10.25", (-11, 750_000_000)),
        ("1.1234567899", (1, 123_456_789)),
    ]);
    let Some(bench) = Bench::new() else { return };
    for (text, want) in cases {
        let layer = Tar::default()
            .pax(&[("mtime", text.as_bytes())])
            .file("a", "")
            .end();
        bench.unpack(&layer).unwrap();
        let meta = fs::metadata(bench.path("a")).unwrap();
        assert_eq!(
            (meta.mtime(), meta.mtime_nsec()),
            (want.0, i64::from(want.1)),
            "{text}"
        );
    }
}

#[test]
fn an_extended_attribute_may_hold_a_newline() {
    let Some(bench) = Bench::new() else { return };
    // Capabilities 1 and 3 make the byte of a newline.
    let capability = [
        1, 0, 0, 2, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let layer = Tar::default()
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("comment", b"a\n12 path=b\n"),
        ])
        .add(b"bin/su", b'0', b"", 0o755, b"program")
        .end();
    bench.unpack(&layer).unwrap();
    assert_eq!(fs::read(bench.path("bin/su")).unwrap(), b"program");
}
