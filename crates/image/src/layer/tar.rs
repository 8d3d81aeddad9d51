//! Reads the entries of a tar stream, with PAX and GNU extensions, in bounded memory.
//!
//! Called by the layer pipeline and by the archive index. The `tar` crate reads the header
//! blocks; the loop is ours because extension records must be bounded: they come from strangers.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Seek};

use super::LayerError;

const BLOCK: usize = 512;
const BLOCK_LEN: u64 = 512;
/// Bytes of one extension record (a long name, a set of PAX values).
const MAX_EXTENSION: u64 = 1 << 20;
const XATTR: &str = "SCHILY.xattr.";

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    File,
    Dir,
    Symlink,
    Hardlink,
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
}

/// One entry: a header with all extensions applied.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) what: What,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) size: u64,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

/// Reads entries one after another; between two calls of [`Entries::next`], reading it gives the
/// content of the current one.
#[derive(Debug)]
pub(crate) struct Entries<R> {
    stream: R,
    /// Bytes of the current content that were not read yet, and the padding behind them.
    content: u64,
    padding: u64,
    /// Bytes read so far.
    offset: u64,
}

/// Extension records seen before an entry.
#[derive(Debug, Default)]
struct Extras {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: BTreeMap<String, Vec<u8>>,
}

// === impl Entries ===

impl<R: Read> Entries<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self {
            stream,
            content: 0,
            padding: 0,
            offset: 0,
        }
    }

    /// Returns where in the stream the content of the current entry starts.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Skips what is left of the current entry and returns the next one, or nothing at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, LayerError> {
        self.advance(Self::skip)
    }

    fn advance(
        &mut self,
        skip: impl Fn(&mut Self, u64) -> Result<(), LayerError>,
    ) -> Result<Option<Entry>, LayerError> {
        let mut extras = Extras::default();
        loop {
            let rest = self.content.saturating_add(self.padding);
            skip(self, rest)?;
            self.content = 0;
            self.padding = 0;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = header.entry_size().map_err(broken)?;
            let kind = header.entry_type();
            match kind.as_byte() {
                b'x' => extras.pax(&self.extension(size)?)?,
                b'g' => drop(self.extension(size)?),
                b'L' => extras.path = Some(trim(self.extension(size)?)),
                b'K' => extras.link = Some(trim(self.extension(size)?)),
                // Volume labels and the like, which say nothing about files.
                b'V' | b'M' | b'N' => self.begin(size)?,
                _ => {
                    let entry = extras.entry(&header)?;
                    self.begin(entry.size)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    fn begin(&mut self, size: u64) -> Result<(), LayerError> {
        let padded = size
            .checked_next_multiple_of(BLOCK_LEN)
            .ok_or_else(|| LayerError::Broken(format!("an entry claims {size} bytes")))?;
        self.content = size;
        self.padding = padded - size;
        Ok(())
    }

    /// Reads a header block; nothing at the end of the archive or of the stream.
    fn header(&mut self) -> Result<Option<::tar::Header>, LayerError> {
        let mut block = [0_u8; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.stream.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(LayerError::Broken("it ends inside a header".to_owned())),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(LayerError::Read(e)),
            }
        }
        self.offset += BLOCK_LEN;
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let header = ::tar::Header::from_byte_slice(&block).clone();
        // The sum is taken with its own field read as spaces.
        let sum = block.iter().enumerate().fold(0_u32, |sum, (at, byte)| {
            let byte = if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            };
            sum + u32::from(byte)
        });
        if header.cksum().map_err(broken)? != sum {
            return Err(LayerError::Broken(
                "a header has a wrong checksum".to_owned(),
            ));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, LayerError> {
        if size > MAX_EXTENSION {
            return Err(LayerError::Broken(format!(
                "an extension record claims {size} bytes"
            )));
        }
        self.begin(size)?;
        let mut data = Vec::new();
        self.read_to_end(&mut data).map_err(LayerError::Read)?;
        Ok(data)
    }

    fn skip(&mut self, len: u64) -> Result<(), LayerError> {
        let skipped = io::copy(&mut (&mut self.stream).take(len), &mut io::sink())
            .map_err(LayerError::Read)?;
        self.offset += skipped;
        if skipped != len {
            return Err(LayerError::Broken("it ends inside an entry".to_owned()));
        }
        Ok(())
    }
}

impl<R: Read + Seek> Entries<BufReader<R>> {
    /// Like [`Entries::next`], for a file: contents are jumped over, not read.
    pub(crate) fn next_by_seek(&mut self) -> Result<Option<Entry>, LayerError> {
        self.advance(|entries, len| {
            let jump = i64::try_from(len)
                .map_err(|_| LayerError::Broken(format!("an entry claims {len} bytes")))?;
            entries
                .stream
                .seek_relative(jump)
                .map_err(LayerError::Read)?;
            entries.offset = entries.offset.saturating_add(len);
            Ok(())
        })
    }
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.content).map_or(buf.len(), |left| left.min(buf.len()));
        if room == 0 {
            return Ok(0);
        }
        let n = self.stream.read(&mut buf[..room])?;
        if n == 0 {
            let text = "it ends inside an entry";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        let read = u64::try_from(n).unwrap_or(u64::MAX);
        self.content -= read;
        self.offset += read;
        Ok(n)
    }
}

/// Splits the first record, `LENGTH KEY=VALUE` and a newline, off extended headers. The length
/// counts the whole record: a value may hold anything, newlines too. Returns key, value and rest.
fn pax_record(data: &[u8]) -> Result<[&[u8]; 3], LayerError> {
    let malformed = || LayerError::Broken("an extended header is malformed".to_owned());
    let space = data.iter().position(|b| *b == b' ');
    let space = space.ok_or_else(malformed)?;
    let length = std::str::from_utf8(&data[..space]).ok();
    let length: usize = length.and_then(|l| l.parse().ok()).ok_or_else(malformed)?;
    let record = data.get(space + 1..length).ok_or_else(malformed)?;
    let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
    let equals = record.iter().position(|b| *b == b'=');
    let equals = equals.ok_or_else(malformed)?;
    Ok([&record[..equals], &record[equals + 1..], &data[length..]])
}

// === impl Extras ===

impl Extras {
    fn pax(&mut self, data: &[u8]) -> Result<(), LayerError> {
        let mut rest = data;
        while !rest.is_empty() {
            let [key, value, after] = pax_record(rest)?;
            rest = after;
            let Ok(key) = std::str::from_utf8(key) else {
                continue;
            };
            match key {
                "path" => self.path = Some(value.to_vec()),
                "linkpath" => self.link = Some(value.to_vec()),
                "size" => self.size = Some(number(key, value)?),
                "uid" => self.uid = Some(number(key, value)?),
                "gid" => self.gid = Some(number(key, value)?),
                "mtime" => self.mtime = Some(time(value)?),
                _ if key.starts_with("GNU.sparse.") => return Err(sparse()),
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        self.xattrs.insert(name.to_owned(), value.to_vec());
                    }
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, header: &::tar::Header) -> Result<Entry, LayerError> {
        let taken = std::mem::take(self);
        let path = taken
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let what = what(header, &path)?;
        let id = |pax: Option<u64>, own: io::Result<u64>| {
            let id = pax.map_or(own, Ok).map_err(broken)?;
            // The highest number stands for "unchanged" in system calls.
            match u32::try_from(id) {
                Ok(id) if id != u32::MAX => Ok(id),
                _ => Err(LayerError::Broken(format!("owner {id} is too large"))),
            }
        };
        let size = match what {
            What::File => taken
                .size
                .map_or_else(|| header.entry_size(), Ok)
                .map_err(broken)?,
            _ => 0,
        };
        let seconds = || header.mtime().map(|s| i64::try_from(s).unwrap_or(0));
        let link = || header.link_name_bytes().unwrap_or_default().into_owned();
        Ok(Entry {
            what,
            link: taken.link.unwrap_or_else(link),
            mode: header.mode().map_err(broken)? & 0o7777,
            uid: id(taken.uid, header.uid())?,
            gid: id(taken.gid, header.gid())?,
            mtime: taken
                .mtime
                .map_or_else(|| Ok((seconds()?, 0)), Ok)
                .map_err(broken)?,
            size,
            xattrs: taken.xattrs,
            path,
        })
    }
}

fn what(header: &::tar::Header, path: &[u8]) -> Result<What, LayerError> {
    let device = || {
        let major = header.device_major().map_err(broken)?.unwrap_or(0);
        let minor = header.device_minor().map_err(broken)?.unwrap_or(0);
        Ok::<_, LayerError>((major, minor))
    };
    Ok(match header.entry_type().as_byte() {
        // Before PAX, a directory was a file whose name ends with a slash.
        0 | b'0' if path.ends_with(b"/") => What::Dir,
        0 | b'0' | b'7' => What::File,
        b'1' => What::Hardlink,
        b'2' => What::Symlink,
        b'3' => {
            let (major, minor) = device()?;
            What::Char { major, minor }
        }
        b'4' => {
            let (major, minor) = device()?;
            What::Block { major, minor }
        }
        b'5' | b'D' => What::Dir,
        b'6' => What::Fifo,
        b'S' => return Err(sparse()),
        other => {
            return Err(LayerError::Broken(format!(
                "an entry has the unknown type {other}"
            )));
        }
    })
}

fn broken(error: io::Error) -> LayerError {
    LayerError::Broken(error.to_string())
}

fn sparse() -> LayerError {
    LayerError::Unsupported("it holds a sparse file; build the image without --sparse".to_owned())
}

/// Drops the zero bytes that end a GNU long name.
fn trim(mut name: Vec<u8>) -> Vec<u8> {
    while name.last() == Some(&0) {
        name.pop();
    }
    name
}

fn number(key: &str, value: &[u8]) -> Result<u64, LayerError> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| LayerError::Broken(format!("its PAX value {key} is no number")))
}

/// Reads `seconds[.fraction]`, perhaps negative, keeping nanoseconds.
fn time(value: &[u8]) -> Result<(i64, u32), LayerError> {
    let bad = || LayerError::Broken("its PAX value mtime is no time".to_owned());
    let text = std::str::from_utf8(value).map_err(|_| bad())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| bad())?;
    let mut nanos = 0_u32;
    for digit in fraction.chars().chain(std::iter::repeat('0')).take(9) {
        nanos = nanos * 10 + digit.to_digit(10).ok_or_else(bad)?;
    }
    if whole.starts_with('-') && nanos > 0 {
        return Ok((seconds.saturating_sub(1), 1_000_000_000 - nanos));
    }
    Ok((seconds, nanos))
}
