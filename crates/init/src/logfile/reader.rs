//! Reading segments while they are written: the newest lines, and then what comes after a cursor.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{CWD, OFlags};
use serde::{Deserialize, Serialize};

use super::{Family, Line, MAX_LINE, segments};
use crate::untrusted;

/// A place in one family of segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The number of the segment.
    pub segment: u64,
    /// The offset of the next unread line in it.
    pub offset: u64,
}

/// A place in a Machine's log. The default is its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// In the program's lines.
    pub app: Position,
    /// In the host's lines.
    pub host: Position,
}

/// Most bytes that one call reads of a family.
const MAX_READ: usize = 1024 * 1024;
/// Most bytes that [`tail`] looks back in a family.
const MAX_TAIL_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes read at a time.
const BLOCK: usize = 64 * 1024;
/// Longest line on disk: the text, time, tag and start.
const MAX_RECORD: usize = MAX_LINE + 64;

/// Returns up to `lines` of the newest lines of both families, oldest first, and the place after
/// them. A directory that does not exist is an empty log.
pub fn tail(dir: &Path, lines: usize) -> io::Result<(Vec<Line>, Cursor)> {
    let (mut found, app) = tail_family(dir, Family::App, lines)?;
    let (host_lines, host) = tail_family(dir, Family::Host, lines)?;
    found.extend(host_lines);
    found.sort_by_key(|line| line.at_us);
    let surplus = found.len().saturating_sub(lines);
    found.drain(..surplus);
    Ok((found, Cursor { app, host }))
}

/// Returns the whole lines after the cursor, merged by time, and moves it behind them. Returns
/// nothing when there is nothing new; at most [`MAX_READ`] bytes of each family at once. Where
/// rotation has overtaken the cursor it goes on with the oldest line that is left.
pub fn read_from(dir: &Path, cursor: &mut Cursor) -> io::Result<Vec<Line>> {
    let mut found = Vec::new();
    read_family(dir, Family::App, &mut cursor.app, &mut found)?;
    read_family(dir, Family::Host, &mut cursor.host, &mut found)?;
    found.sort_by_key(|line| line.at_us);
    Ok(found)
}

fn list(dir: &Path, family: Family) -> io::Result<Vec<u64>> {
    match File::open(dir) {
        Ok(open) => segments(open, family),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Opens a segment. What is no file is none: it was not put there by a writer of ours.
fn open(dir: &Path, family: Family, segment: u64) -> io::Result<Option<File>> {
    match untrusted::open(CWD, dir.join(family.file_name(segment)), OFlags::RDONLY) {
        Ok(file) => Ok(file.map(File::from)),
        // Rotated away since it was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_family(
    dir: &Path,
    family: Family,
    position: &mut Position,
    found: &mut Vec<Line>,
) -> io::Result<()> {
    let mut left = MAX_READ;
    // A segment is whole when a later one is listed before it is read: the writer has moved on.
    for segment in list(dir, family)? {
        if segment < position.segment {
            continue;
        }
        if segment > position.segment {
            *position = Position { segment, offset: 0 };
        }
        let Some(file) = open(dir, family, segment)? else {
            continue;
        };
        read_segment(&file, position, &mut left, found)?;
        if left == 0 {
            break;
        }
    }
    Ok(())
}

/// Reads whole lines of one segment from the position on, up to `left` bytes.
fn read_segment(
    file: &File,
    position: &mut Position,
    left: &mut usize,
    found: &mut Vec<Line>,
) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    while *left > 0 {
        let count = read_at(file, &mut block, position.offset)?;
        let bytes = block.get(..count).unwrap_or_default();
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            // No line of ours is so long: something else wrote here. Pass it over.
            if count > MAX_RECORD {
                position.offset += u64::try_from(count).unwrap_or(0);
                continue;
            }
            return Ok(());
        };
        let whole = bytes.get(..end).unwrap_or_default();
        found.extend(whole.split(|byte| *byte == b'\n').filter_map(Line::parse));
        position.offset += u64::try_from(end + 1).unwrap_or(0);
        *left = left.saturating_sub(end + 1);
    }
    Ok(())
}

fn tail_family(dir: &Path, family: Family, lines: usize) -> io::Result<(Vec<Line>, Position)> {
    let all = list(dir, family)?;
    let mut place: Option<Position> = None;
    let mut newest_first: Vec<Line> = Vec::new();
    let mut budget = MAX_TAIL_BYTES;
    for segment in all.iter().rev().copied() {
        let Some(file) = open(dir, family, segment)? else {
            continue;
        };
        let end = end_of_lines(&file)?;
        place.get_or_insert(Position {
            segment,
            offset: end,
        });
        if newest_first.len() >= lines || budget == 0 {
            break;
        }
        tail_segment(&file, end, lines, &mut budget, &mut newest_first)?;
    }
    newest_first.truncate(lines);
    newest_first.reverse();
    Ok((newest_first, place.unwrap_or_default()))
}

/// Returns the offset behind the last whole line.
fn end_of_lines(file: &File) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let window = len.min(u64::try_from(BLOCK).unwrap_or(0));
    let mut block = vec![0; usize::try_from(window).unwrap_or(0)];
    let from = len - window;
    let count = read_at(file, &mut block, from)?;
    let bytes = block.get(..count).unwrap_or_default();
    Ok(match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => from + u64::try_from(at + 1).unwrap_or(0),
        None => from,
    })
}

/// Reads lines backwards from `end`, newest first.
fn tail_segment(
    file: &File,
    mut end: u64,
    lines: usize,
    budget: &mut u64,
    newest_first: &mut Vec<Line>,
) -> io::Result<()> {
    // Bytes of a line whose beginning has not been read yet.
    let mut rest: Vec<u8> = Vec::new();
    while end > 0 && newest_first.len() < lines && *budget > 0 {
        let window = end.min(u64::try_from(BLOCK).unwrap_or(0));
        let mut block = vec![0; usize::try_from(window).unwrap_or(0)];
        end -= window;
        let count = read_at(file, &mut block, end)?;
        block.truncate(count);
        block.extend_from_slice(&rest);
        *budget = budget.saturating_sub(window);
        let first_line = if end == 0 {
            0
        } else {
            match block.iter().position(|byte| *byte == b'\n') {
                Some(at) => at + 1,
                None => block.len(),
            }
        };
        let whole = block.get(first_line..).unwrap_or_default();
        newest_first.extend(
            whole
                .split(|byte| *byte == b'\n')
                .rev()
                .filter_map(Line::parse),
        );
        block.truncate(first_line);
        rest = block;
        if rest.len() > BLOCK {
            rest.clear();
        }
    }
    Ok(())
}

fn read_at(file: &File, block: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        let rest = block.get_mut(filled..).unwrap_or_default();
        let at = offset + u64::try_from(filled).unwrap_or(0);
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
