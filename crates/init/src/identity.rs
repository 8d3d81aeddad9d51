//! Who the program runs as: the image's `User` looked up in the image's own passwd and group.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

/// A user with its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, without `gid`.
    pub(crate) groups: Vec<u32>,
    /// The home directory, or "/".
    pub(crate) home: String,
}

/// Most bytes of passwd or group that are looked at.
const MAX_FILE: u64 = 1024 * 1024;
/// Most supplementary groups that are taken.
const MAX_GROUPS: usize = 1024;

/// Returns the identity of `user` by the files of this root. The error says what is missing.
pub(crate) fn resolve(user: &str) -> Result<Identity, String> {
    resolve_in(user, &read("/etc/passwd"), &read("/etc/group"))
}

/// An absent or odd file is an empty one: numbers need no names.
fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    let open = File::options()
        .read(true)
        // An image may hold a pipe in its place; opening must not wait for a writer.
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path);
    if let Ok(file) = open
        && file.metadata().is_ok_and(|meta| meta.is_file())
        && file.take(MAX_FILE).read_to_end(&mut bytes).is_err()
    {
        bytes.clear();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn resolve_in(user: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let account = find(passwd, name);
    let number = name.parse::<u32>().ok();
    let mut identity = match (account, number) {
        (Some(account), _) => account_identity(account)
            .ok_or_else(|| format!("user {name:?} has a broken line in the image's /etc/passwd"))?,
        (None, Some(uid)) => Identity {
            uid,
            gid: uid,
            home: "/".to_owned(),
            ..Identity::default()
        },
        (None, None) => {
            return Err(format!("no user named {name:?} in the image's /etc/passwd"));
        }
    };
    match group_name {
        Some(group_name) => identity.gid = group_id(group, group_name)?,
        None => {
            if let Some(account_name) = account.and_then(|line| line.first().copied()) {
                identity.groups = memberships(group, account_name, identity.gid);
            }
        }
    }
    Ok(identity)
}

type Fields<'a> = [&'a str; 7];

fn lines(text: &str) -> impl Iterator<Item = Fields<'_>> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#') && line.contains(':'))
        .map(|line| {
            let mut fields = [""; 7];
            for (slot, field) in fields.iter_mut().zip(line.trim().split(':')) {
                *slot = field;
            }
            fields
        })
}

/// Finds a line by name, else by number (the third field in both files).
fn find<'a>(text: &'a str, name: &str) -> Option<Fields<'a>> {
    lines(text)
        .find(|line| line[0] == name)
        .or_else(|| lines(text).find(|line| line[2] == name))
}

fn account_identity(line: Fields<'_>) -> Option<Identity> {
    Some(Identity {
        uid: line[2].parse().ok()?,
        gid: line[3].parse().ok()?,
        groups: Vec::new(),
        home: if line[5].is_empty() { "/" } else { line[5] }.to_owned(),
    })
}

fn group_id(group: &str, name: &str) -> Result<u32, String> {
    find(group, name)
        .and_then(|line| line[2].parse().ok())
        .or_else(|| name.parse().ok())
        .ok_or_else(|| format!("no group named {name:?} in the image's /etc/group"))
}

fn memberships(group: &str, account: &str, own: u32) -> Vec<u32> {
    lines(group)
        .filter(|line| line[3].split(',').any(|member| member == account))
        .filter_map(|line| line[2].parse().ok())
        .filter(|gid| *gid != own)
        .take(MAX_GROUPS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# no\nweb:x:1000:1001::/srv/web:\n";
    const GROUP: &str = "root:x:0:\nweb:x:1001:\nlogs:x:50:web,other\nwheel:x:10:root\n";

    fn resolved(user: &str) -> (u32, u32, Vec<u32>, String) {
        let identity = resolve_in(user, PASSWD, GROUP).unwrap();
        (identity.uid, identity.gid, identity.groups, identity.home)
    }

    #[test]
    fn every_form_of_user_is_understood() {
        assert_eq!(resolved(""), (0, 0, vec![10], "/root".to_owned()));
        assert_eq!(
            resolved("web"),
            (1000, 1001, vec![50], "/srv/web".to_owned())
        );
        assert_eq!(
            resolved("1000"),
            (1000, 1001, vec![50], "/srv/web".to_owned())
        );
        assert_eq!(
            resolved("web:logs"),
            (1000, 50, vec![], "/srv/web".to_owned())
        );
        assert_eq!(resolved("77:88"), (77, 88, vec![], "/".to_owned()));
        assert_eq!(resolved("77"), (77, 77, vec![], "/".to_owned()));
    }

    #[test]
    fn a_name_that_is_not_there_is_named() {
        let error = resolve_in("nobody", PASSWD, GROUP).unwrap_err();
        assert!(error.contains("\"nobody\""), "{error}");
        let error = resolve_in("web:none", PASSWD, GROUP).unwrap_err();
        assert!(error.contains("\"none\""), "{error}");
    }

    #[test]
    fn an_image_without_passwd_runs_as_root() {
        let identity = resolve_in("", "", "").unwrap();
        assert_eq!(
            (identity.uid, identity.gid, identity.home.as_str()),
            (0, 0, "/")
        );
    }
}
