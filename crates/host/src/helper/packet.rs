//! Packets between host and helper: a request is an id with a memory file, a reply is JSON.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, send, sendmsg,
};

use super::Reply;

/// Room for the one descriptor of a request.
const CONTROL: usize = 64;
/// Longest reply.
const MAX_REPLY: usize = 16 * 1024;
/// Longest text of an error in a reply.
const MAX_TEXT: usize = 4 * 1024;

/// Puts a request's JSON into a memory file.
pub(super) fn memory_file(json: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create("request", MemfdFlags::CLOEXEC)?);
    file.write_all(json)?;
    file.rewind()?;
    Ok(file)
}

pub(super) fn send_request(socket: impl AsFd, id: u64, body: &File) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); CONTROL];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [body.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::NOBUFS);
    }
    let id = id.to_le_bytes();
    sendmsg(
        socket,
        &[IoSlice::new(&id)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Takes a request; `None` when the host has closed its end.
pub(super) fn receive_request(socket: impl AsFd) -> Result<Option<(u64, File)>, Errno> {
    let mut space = [MaybeUninit::uninit(); CONTROL];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut id = [0; 8];
    let count = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut id)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?
    .bytes;
    if count == 0 {
        return Ok(None);
    }
    let mut body: Option<OwnedFd> = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            body = fds.into_iter().next().or(body);
        }
    }
    let body = body.ok_or(Errno::BADMSG)?;
    Ok(Some((u64::from_le_bytes(id), File::from(body))))
}

pub(super) fn send_reply(socket: impl AsFd, id: u64, reply: &Reply) -> Result<(), Errno> {
    let mut reply = reply.clone();
    if let Some(text) = &mut reply.error {
        let end = text.floor_char_boundary(MAX_TEXT);
        text.truncate(end);
    }
    let json = serde_json::to_vec(&(id, reply)).map_err(|_| Errno::INVAL)?;
    send(socket, &json, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes a reply; `None` when helper and workers are gone.
pub(super) fn receive_reply(socket: impl AsFd) -> Result<Option<(u64, Reply)>, Errno> {
    let mut bytes = vec![0; MAX_REPLY];
    let (_, count) = recv(socket, &mut bytes[..], RecvFlags::empty())?;
    if count == 0 {
        return Ok(None);
    }
    let json = bytes.get(..count).unwrap_or_default();
    serde_json::from_slice(json)
        .map(Some)
        .map_err(|_| Errno::BADMSG)
}
