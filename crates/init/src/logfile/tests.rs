use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::*;

fn open_dir(dir: &Path) -> OwnedFd {
    File::open(dir).unwrap().into()
}

fn texts(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[test]
fn lines_come_back_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::open(open_dir(dir.path()), Family::App).unwrap();
    writer.push(5, Source::App, false, 1, b"hello  world ");
    writer.push(6, Source::App, true, 1, b"");
    writer.flush();
    let mut cursor = Cursor::default();
    let lines = read_from(dir.path(), &mut cursor).unwrap();
    assert_eq!(texts(&lines), ["hello  world ", ""]);
    assert_eq!(
        (lines[0].at_us, lines[0].error, lines[0].start),
        (5, false, 1)
    );
    assert!(lines[1].error);
    assert!(read_from(dir.path(), &mut cursor).unwrap().is_empty());
}

#[test]
fn long_lines_are_split_at_the_cap() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::open(open_dir(dir.path()), Family::App).unwrap();
    writer.push(1, Source::App, false, 1, &vec![b'x'; MAX_LINE * 2 + 7]);
    writer.flush();
    let (lines, _) = tail(dir.path(), 10).unwrap();
    let lengths: Vec<usize> = lines.iter().map(|line| line.text.len()).collect();
    assert_eq!(lengths, [MAX_LINE, MAX_LINE, 7]);
}

#[test]
fn a_reader_follows_over_rotation_and_sees_each_line_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::open_with(open_dir(dir.path()), Family::App, 100).unwrap();
    let mut cursor = Cursor::default();
    let mut seen = Vec::new();
    for number in 0..200_u64 {
        writer.push(
            number,
            Source::App,
            false,
            1,
            format!("line {number}").as_bytes(),
        );
        writer.flush();
        if number % 3 == 0 {
            seen.extend(read_from(dir.path(), &mut cursor).unwrap());
        }
    }
    seen.extend(read_from(dir.path(), &mut cursor).unwrap());
    let expected: Vec<String> = (0..200).map(|number| format!("line {number}")).collect();
    assert_eq!(texts(&seen), expected);
    let kept = segments(open_dir(dir.path()), Family::App).unwrap();
    assert_eq!(u64::try_from(kept.len()).unwrap(), KEEP_SEGMENTS);
}

#[test]
fn a_reader_that_rotation_has_overtaken_goes_on_with_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::open_with(open_dir(dir.path()), Family::App, 100).unwrap();
    for number in 0..100_u64 {
        writer.push(number, Source::App, false, 1, b"some words");
        writer.flush();
    }
    let mut cursor = Cursor::default();
    let lines = read_from(dir.path(), &mut cursor).unwrap();
    assert_eq!(lines.last().unwrap().at_us, 99);
    assert!(lines.len() < 100);
}

#[test]
fn a_torn_line_is_neither_shown_nor_joined_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::open(open_dir(dir.path()), Family::App).unwrap();
    writer.push(1, Source::App, false, 1, b"whole");
    drop(writer);
    let path = dir.path().join("app.0.log");
    let mut torn = OpenOptions::new().append(true).open(&path).unwrap();
    torn.write_all(b"2 o 1 to").unwrap();
    let mut cursor = Cursor::default();
    assert_eq!(
        texts(&read_from(dir.path(), &mut cursor).unwrap()),
        ["whole"]
    );
    assert_eq!(texts(&tail(dir.path(), 5).unwrap().0), ["whole"]);
    // What is torn but looks like a line stays one: it is what the program said.
    let mut writer = SegmentWriter::open(open_dir(dir.path()), Family::App).unwrap();
    writer.push(3, Source::App, false, 2, b"next");
    writer.flush();
    let lines = read_from(dir.path(), &mut cursor).unwrap();
    assert_eq!(texts(&lines), ["to", "next"]);
}

#[test]
fn the_two_families_are_merged_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut app = SegmentWriter::open(open_dir(dir.path()), Family::App).unwrap();
    let mut host = SegmentWriter::open(open_dir(dir.path()), Family::Host).unwrap();
    host.push(1, Source::Runner, false, 1, b"starting");
    app.push(2, Source::App, false, 1, b"hello");
    host.push(3, Source::Health, true, 1, b"check failed");
    app.flush();
    host.flush();
    let (lines, mut cursor) = tail(dir.path(), 2).unwrap();
    assert_eq!(texts(&lines), ["hello", "check failed"]);
    assert_eq!(lines[1].source, Source::Health);
    assert!(lines[1].error);
    assert!(read_from(dir.path(), &mut cursor).unwrap().is_empty());
}

#[test]
fn a_tail_reaches_back_over_segments_and_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::open_with(open_dir(dir.path()), Family::App, 200_000).unwrap();
    for number in 0..1000_u64 {
        writer.push(number, Source::App, false, 1, &[b'x'; 500]);
    }
    writer.flush();
    let (lines, _) = tail(dir.path(), 700).unwrap();
    assert_eq!(lines.len(), 700);
    assert_eq!(lines[0].at_us, 300);
    assert_eq!(lines[699].at_us, 999);
}

#[test]
fn a_log_that_does_not_exist_is_empty() {
    let (lines, mut cursor) = tail(Path::new("/nonexistent/log"), 10).unwrap();
    assert!(lines.is_empty());
    assert!(
        read_from(Path::new("/nonexistent/log"), &mut cursor)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_full_disk_drops_lines_counts_them_and_says_so_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::open(open_dir(dir.path()), Family::App).unwrap();
    let good = std::mem::replace(
        &mut writer.file,
        OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/full")
            .unwrap()
            .into(),
    );
    writer.push(1, Source::App, false, 1, b"lost");
    writer.flush();
    assert_eq!(writer.dropped(), 1);
    writer.file = good;
    writer.len = 0;
    writer.push(2, Source::App, false, 1, b"kept");
    writer.flush();
    assert_eq!(writer.dropped(), 0);
    let (lines, _) = tail(dir.path(), 10).unwrap();
    assert_eq!(lines[0].text, "kept");
    assert!(lines[1].text.contains("1 log lines were dropped"));
}

#[test]
fn what_is_no_segment_of_a_writers_is_passed_over() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut writer = SegmentWriter::open(open_dir(dir.path()), Family::App).unwrap();
    writer.push(5, Source::App, false, 1, b"mine");
    writer.flush();
    std::fs::write(path("elsewhere"), "6 a 1 secret\n").unwrap();
    std::os::unix::fs::symlink(path("elsewhere"), path("app.1.log")).unwrap();
    mknodat(CWD, path("app.2.log"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    std::fs::create_dir(path("app.3.log")).unwrap();
    std::fs::write(path(&format!("host.{}.log", u64::MAX)), "").unwrap();
    assert_eq!(texts(&tail(dir.path(), 10).unwrap().0), ["mine"]);
    let lines = read_from(dir.path(), &mut Cursor::default()).unwrap();
    assert_eq!(texts(&lines), ["mine"]);
    for (odd, family) in [("app.3.log", Family::App), ("app.2.log", Family::App)] {
        let error = SegmentWriter::open(open_dir(dir.path()), family).unwrap_err();
        assert!(error.to_string().contains(odd), "{error}");
        std::fs::remove_dir(path(odd))
            .or_else(|_| std::fs::remove_file(path(odd)))
            .unwrap();
    }
    // Full at once, so that it goes on to the next number.
    let mut host = SegmentWriter::open_with(open_dir(dir.path()), Family::Host, 0).unwrap();
    for at in 0..3 {
        host.push(at, Source::Runner, false, 1, b"host");
        host.flush();
    }
    assert!(path("host.3.log").exists());
}
