//! Macaroons and caveats as MessagePack, byte for byte as Fly's clients write them: structs are
//! arrays, numbers as short as they go, sets sorted. A client that decodes a token of ours and
//! writes it again gets the same bytes.

use std::collections::BTreeMap;

use rmp::{Marker, decode, encode};

use super::{MAX_CAVEATS, MAX_LEN};
use crate::rights::{Action, AllowedCommand, Caveat, GROUPS, Masks};

/// How deep values may be inside each other.
const MAX_DEPTH: usize = 16;
/// How deep caveats may be inside each other.
const MAX_NESTED: usize = 4;

/// A token taken apart.
pub(super) struct Parts {
    pub(super) nonce: Vec<u8>,
    pub(super) key_id: Vec<u8>,
    pub(super) is_proof: bool,
    pub(super) location: String,
    /// Each caveat, and its kind and body as they stand there.
    pub(super) caveats: Vec<(Caveat, Vec<u8>)>,
    pub(super) tail: Vec<u8>,
}

type Read<T> = Result<T, String>;

// === reading ===

/// Bytes that are read from the front.
struct Input<'a>(&'a [u8]);

fn bad(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

/// Takes a token apart.
pub(super) fn token(bytes: &[u8]) -> Read<Parts> {
    if bytes.len() > MAX_LEN {
        return Err(format!("it is longer than {MAX_LEN} bytes"));
    }
    let mut input = Input(bytes);
    if input.array()? != 4 {
        return Err("it has not four parts".to_owned());
    }
    let nonce = input.raw()?;
    let location = input.text()?;
    let mut inside = Input(input.raw()?);
    let tail = input.bytes()?;
    if !input.0.is_empty() {
        return Err("something follows it".to_owned());
    }
    let length = inside.array()?;
    if length % 2 != 0 || length / 2 > MAX_CAVEATS {
        return Err("its caveats cannot be counted".to_owned());
    }
    let mut caveats = Vec::new();
    for _ in 0..length / 2 {
        let whole = inside.0;
        let read = inside.caveat(0)?;
        let raw = &whole[..whole.len() - inside.0.len()];
        caveats.push((read, raw.to_vec()));
    }
    let mut parts = Input(nonce);
    let fields = parts.array()?;
    if !(2..=3).contains(&fields) {
        return Err("its nonce is of an unknown form".to_owned());
    }
    let key_id = parts.bytes()?;
    parts.bytes()?;
    let is_proof = fields == 3 && parts.bool()?;
    Ok(Parts {
        nonce: nonce.to_vec(),
        key_id,
        is_proof,
        location,
        caveats,
        tail,
    })
}

// === impl Input ===

impl<'a> Input<'a> {
    fn array(&mut self) -> Read<usize> {
        if self.nil() {
            return Ok(0);
        }
        let length = decode::read_array_len(&mut self.0).map_err(bad)?;
        usize::try_from(length).map_err(bad)
    }

    /// Takes a nil, where there is one.
    fn nil(&mut self) -> bool {
        let is_nil = self.0.first() == Some(&0xc0);
        if is_nil {
            self.0 = &self.0[1..];
        }
        is_nil
    }

    /// Takes one value of any kind as it stands there.
    fn raw(&mut self) -> Read<&'a [u8]> {
        let whole = self.0;
        self.skip(0)?;
        Ok(&whole[..whole.len() - self.0.len()])
    }

    /// Passes over one value. Kinds that no macaroon has are refused.
    fn skip(&mut self, depth: usize) -> Read<()> {
        if depth > MAX_DEPTH {
            return Err("values are too deep inside each other".to_owned());
        }
        let marker = decode::read_marker(&mut self.0).map_err(bad)?;
        let (bytes, values) = match marker {
            Marker::FixPos(_) | Marker::FixNeg(_) => (0, 0),
            Marker::Null | Marker::True | Marker::False => (0, 0),
            Marker::U8 | Marker::I8 => (1, 0),
            Marker::U16 | Marker::I16 => (2, 0),
            Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
            Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
            Marker::FixStr(length) => (usize::from(length), 0),
            Marker::Str8 | Marker::Bin8 => (self.length(1)?, 0),
            Marker::Str16 | Marker::Bin16 => (self.length(2)?, 0),
            Marker::Str32 | Marker::Bin32 => (self.length(4)?, 0),
            Marker::FixArray(length) => (0, usize::from(length)),
            Marker::Array16 => (0, self.length(2)?),
            Marker::Array32 => (0, self.length(4)?),
            Marker::FixMap(length) => (0, usize::from(length) * 2),
            Marker::Map16 => (0, self.length(2)? * 2),
            Marker::Map32 => (0, self.length(4)?.saturating_mul(2)),
            other => return Err(format!("a value of the kind {other:?}")),
        };
        self.take(bytes)?;
        // Each value is a byte at least, so a length that lies is found out at the end of the input.
        (0..values).try_for_each(|_| self.skip(depth + 1))
    }

    fn length(&mut self, bytes: usize) -> Read<usize> {
        let taken = self.take(bytes)?.iter();
        Ok(taken.fold(0, |length, byte| length << 8 | usize::from(*byte)))
    }

    fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("it is cut off")?;
        self.0 = rest;
        Ok(taken)
    }

    fn bytes(&mut self) -> Read<Vec<u8>> {
        let length = match self.0.first() {
            Some(0xc4..=0xc6) => decode::read_bin_len(&mut self.0).map_err(bad)?,
            _ => decode::read_str_len(&mut self.0).map_err(bad)?,
        };
        let length = usize::try_from(length).map_err(bad)?;
        Ok(self.take(length)?.to_vec())
    }

    fn text(&mut self) -> Read<String> {
        String::from_utf8(self.bytes()?).map_err(bad)
    }

    fn bool(&mut self) -> Read<bool> {
        decode::read_bool(&mut self.0).map_err(bad)
    }

    fn number(&mut self) -> Read<u64> {
        decode::read_int(&mut self.0).map_err(bad)
    }

    fn signed(&mut self) -> Read<i64> {
        decode::read_int(&mut self.0).map_err(bad)
    }

    fn action(&mut self) -> Read<Action> {
        decode::read_int(&mut self.0).map(Action).map_err(bad)
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let length = self.array()?;
        // Not reserved: the length is what a stranger says.
        (0..length).map(|_| one(self)).collect()
    }

    /// Reads a struct whose only field is a set.
    fn set<K: Ord>(&mut self, key: impl Fn(&mut Self) -> Read<K>) -> Read<Masks<K>> {
        self.fields(1)?;
        let mut set = BTreeMap::new();
        if self.nil() {
            return Ok(set);
        }
        let length = decode::read_map_len(&mut self.0).map_err(bad)?;
        for _ in 0..length {
            let id = key(self)?;
            let mask = self.action()?;
            if set.insert(id, mask).is_some() {
                return Err("a set names something twice".to_owned());
            }
        }
        Ok(set)
    }

    fn texts(&mut self) -> Read<Masks<String>> {
        self.set(Self::text)
    }

    /// Reads the head of a struct: as many fields as are known, so that none goes unheeded.
    fn fields(&mut self, known: usize) -> Read<()> {
        match self.array()? {
            length if length == known => Ok(()),
            other => Err(format!("a caveat has {other} fields in place of {known}")),
        }
    }

    /// Reads kind and body. What is not understood is of an unknown kind, and permits nothing.
    fn caveat(&mut self, depth: usize) -> Read<Caveat> {
        let kind = self.number()?;
        let mut body = Input(self.raw()?);
        let read = if depth < MAX_NESTED {
            body.body(kind, depth)
        } else {
            Err("caveats are too deep inside each other".to_owned())
        };
        Ok(match read {
            Ok(caveat) if body.0.is_empty() => caveat,
            _ => Caveat::Unknown(kind),
        })
    }

    fn body(&mut self, kind: u64, depth: usize) -> Read<Caveat> {
        Ok(match kind {
            0 => {
                self.fields(2)?;
                Caveat::Organization {
                    id: self.number()?,
                    mask: self.action()?,
                }
            }
            2 => Caveat::Volumes(self.texts()?),
            3 => Caveat::Apps(self.set(Self::number)?),
            4 => {
                self.fields(2)?;
                Caveat::ValidityWindow {
                    not_before: self.signed()?,
                    not_after: self.signed()?,
                }
            }
            5 => Caveat::FeatureSet(self.texts()?),
            6 => {
                self.fields(1)?;
                Caveat::Mutations(self.list(Self::text)?)
            }
            7 => Caveat::Machines(self.texts()?),
            10 => {
                self.fields(1)?;
                Caveat::IsUser(self.number()?)
            }
            13 => self.if_present(depth)?,
            14 => Caveat::MachineFeatureSet(self.texts()?),
            15 => {
                self.fields(1)?;
                Caveat::FromMachine(self.text()?)
            }
            16 => Caveat::Clusters(self.texts()?),
            22 => {
                self.fields(0)?;
                Caveat::IsMember
            }
            26 => Caveat::Action(self.action()?),
            27 => Caveat::Commands(self.list(Self::command)?),
            28 => Caveat::AppFeatureSet(self.texts()?),
            29 => Caveat::StorageObjects(self.texts()?),
            30 => Caveat::AllowedRoles(decode::read_int(&mut self.0).map_err(bad)?),
            31 => {
                self.fields(3)?;
                Caveat::FlySrc {
                    organization: self.text()?,
                    app: self.text()?,
                    instance: self.text()?,
                }
            }
            GROUPS => Caveat::Groups(self.texts()?),
            other => return Err(format!("kind {other}")),
        })
    }

    fn if_present(&mut self, depth: usize) -> Read<Caveat> {
        self.fields(2)?;
        let length = self.array()?;
        if length % 2 != 0 {
            return Err("its caveats cannot be counted".to_owned());
        }
        let mut ifs = Vec::new();
        for _ in 0..length / 2 {
            ifs.push(self.caveat(depth + 1)?);
        }
        Ok(Caveat::IfPresent {
            ifs,
            otherwise: self.action()?,
        })
    }

    fn command(&mut self) -> Read<AllowedCommand> {
        self.fields(2)?;
        Ok(AllowedCommand {
            args: self.list(Self::text)?,
            exact: self.bool()?,
        })
    }
}

// === writing ===

/// Bytes that are written at the end. Nothing fails: they are in memory.
#[derive(Default)]
struct Output(Vec<u8>);

/// Returns the nonce of a token that takes caveats.
pub(super) fn nonce(key_id: &[u8], random: &[u8]) -> Vec<u8> {
    let mut out = Output::default();
    out.array(3);
    out.bytes(key_id);
    out.bytes(random);
    out.bool(false);
    out.0
}

/// Returns a token of its parts.
pub(super) fn write_token(nonce: &[u8], location: &str, caveats: &[&[u8]], tail: &[u8]) -> Vec<u8> {
    let mut out = Output::default();
    out.array(4);
    out.0.extend_from_slice(nonce);
    out.text(location);
    out.array(caveats.len() * 2);
    for raw in caveats {
        out.0.extend_from_slice(raw);
    }
    out.bytes(tail);
    out.0
}

/// Returns what is signed for a caveat: a list of it alone.
pub(super) fn one_caveat(raw: &[u8]) -> Vec<u8> {
    let mut out = Output::default();
    out.array(2);
    out.0.extend_from_slice(raw);
    out.0
}

/// Returns kind and body of a caveat; nothing for one of an unknown kind.
pub(super) fn caveat(caveat: &Caveat) -> Option<Vec<u8>> {
    let mut out = Output::default();
    out.caveat(caveat)?;
    Some(out.0)
}

// === impl Output ===

/// Writing to memory does not fail, and lengths are limited where tokens are read and made.
const IN_MEMORY: &str = "memory takes every byte";

impl Output {
    fn array(&mut self, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        encode::write_array_len(&mut self.0, length).expect(IN_MEMORY);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        encode::write_bin(&mut self.0, bytes).expect(IN_MEMORY);
    }

    fn text(&mut self, text: &str) {
        encode::write_str(&mut self.0, text).expect(IN_MEMORY);
    }

    fn bool(&mut self, value: bool) {
        encode::write_bool(&mut self.0, value).expect(IN_MEMORY);
    }

    fn number(&mut self, value: u64) {
        encode::write_uint(&mut self.0, value).expect(IN_MEMORY);
    }

    fn signed(&mut self, value: i64) {
        encode::write_sint(&mut self.0, value).expect(IN_MEMORY);
    }

    fn action(&mut self, action: Action) {
        self.number(u64::from(action.0));
    }

    fn set<K>(&mut self, set: &Masks<K>, key: impl Fn(&mut Self, &K)) {
        self.array(1);
        let length = u32::try_from(set.len()).unwrap_or(u32::MAX);
        encode::write_map_len(&mut self.0, length).expect(IN_MEMORY);
        for (id, mask) in set {
            key(self, id);
            self.action(*mask);
        }
    }

    fn caveat(&mut self, caveat: &Caveat) -> Option<()> {
        self.number(caveat.kind());
        match caveat {
            Caveat::Organization { id, mask } => {
                self.array(2);
                self.number(*id);
                self.action(*mask);
            }
            Caveat::Apps(set) => self.set(set, |out, id| out.number(*id)),
            Caveat::Volumes(set)
            | Caveat::Machines(set)
            | Caveat::FeatureSet(set)
            | Caveat::MachineFeatureSet(set)
            | Caveat::AppFeatureSet(set)
            | Caveat::Clusters(set)
            | Caveat::StorageObjects(set)
            | Caveat::Groups(set) => self.set(set, |out, id| out.text(id)),
            Caveat::ValidityWindow {
                not_before,
                not_after,
            } => {
                self.array(2);
                self.signed(*not_before);
                self.signed(*not_after);
            }
            Caveat::Mutations(names) => {
                self.array(1);
                self.array(names.len());
                names.iter().for_each(|name| self.text(name));
            }
            Caveat::IsUser(id) => {
                self.array(1);
                self.number(*id);
            }
            Caveat::IfPresent { ifs, otherwise } => {
                self.array(2);
                self.array(ifs.len() * 2);
                ifs.iter().try_for_each(|one| self.caveat(one))?;
                self.action(*otherwise);
            }
            Caveat::FromMachine(id) => {
                self.array(1);
                self.text(id);
            }
            Caveat::IsMember => self.array(0),
            Caveat::AllowedRoles(roles) => self.number(u64::from(*roles)),
            Caveat::Action(mask) => self.action(*mask),
            Caveat::Commands(commands) => self.commands(commands),
            Caveat::FlySrc {
                organization,
                app,
                instance,
            } => {
                self.array(3);
                for text in [organization, app, instance] {
                    self.text(text);
                }
            }
            Caveat::Unknown(_) => return None,
        }
        Some(())
    }

    fn commands(&mut self, commands: &[AllowedCommand]) {
        self.array(commands.len());
        for command in commands {
            self.array(2);
            self.array(command.args.len());
            command.args.iter().for_each(|word| self.text(word));
            self.bool(command.exact);
        }
    }
}
