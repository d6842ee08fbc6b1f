//! Whom a program runs as.

use std::fs;
use std::io;
use std::process::Command;

use rustix::process::{Gid, Uid};

/// Known to everyone, though a root file system may have no `/etc/passwd`.
const ALWAYS: &str = "root:x:0:0::/root:\nnobody:x:65534:65534::/nonexistent:\n";

/// A user of the guest's.
pub(crate) struct Account {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// The further groups.
    pub(crate) groups: Vec<Gid>,
    name: String,
    home: String,
}

impl Account {
    /// The one that `NAME`, `UID`, or either with `:GROUP` behind it means.
    pub(crate) fn find(user: &str) -> io::Result<Account> {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default() + "\n" + ALWAYS;
        let group = fs::read_to_string("/etc/group").unwrap_or_default();
        Account::among(user, &passwd, &group)
    }

    fn among(user: &str, passwd: &str, group: &str) -> io::Result<Account> {
        let (user, wanted_group) = match user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (user, None),
        };
        let number: Option<u32> = user.parse().ok();
        let entry = fields(passwd).find(|entry| match number {
            Some(uid) => entry.get(2).and_then(|text| text.parse().ok()) == Some(uid),
            None => entry[0] == user,
        });
        let field = |at: usize| entry.as_ref().and_then(|entry| entry.get(at).copied());
        let number_at = |at: usize| field(at).and_then(|text| text.parse::<u32>().ok());
        let uid = number.or(number_at(2)).ok_or_else(|| {
            missing(format!(
                "the guest's /etc/passwd has no user {user}; give a number"
            ))
        })?;
        let name = field(0).unwrap_or(user);
        let gid = match wanted_group {
            Some(wanted) => group_id(wanted, group)?,
            None => number_at(3).unwrap_or(uid),
        };
        let is_member = |entry: &[&str]| {
            entry
                .get(3)
                .is_some_and(|members| members.split(',').any(|member| member == name))
        };
        let groups = fields(group)
            .filter(|entry| is_member(entry))
            .filter_map(|entry| entry.get(2)?.parse().ok())
            .map(Gid::from_raw)
            .collect();
        Ok(Account {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            groups,
            name: name.to_owned(),
            home: field(5).unwrap_or("/").to_owned(),
        })
    }

    /// What login(1) would set.
    pub(crate) fn set_environment(&self, command: &mut Command) {
        command
            .env("HOME", &self.home)
            .env("USER", &self.name)
            .env("LOGNAME", &self.name);
    }
}

fn group_id(wanted: &str, group: &str) -> io::Result<u32> {
    let by_name = || {
        let entry = fields(group).find(|entry| entry[0] == wanted)?;
        entry.get(2)?.parse().ok()
    };
    wanted.parse().ok().or_else(by_name).ok_or_else(|| {
        missing(format!(
            "the guest's /etc/group has no group {wanted}; give a number"
        ))
    })
}

/// The lines of passwd(5) and group(5).
fn fields(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

fn missing(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nada:x:1000:100::/home/ada:/bin/sh\n";
    const GROUP: &str = "users:x:100:\nvideo:x:44:bob,ada\nkvm:x:105:bob\n";

    fn find(user: &str) -> io::Result<(u32, u32, Vec<u32>, String)> {
        let account = Account::among(user, PASSWD, GROUP)?;
        let groups = account.groups.iter().map(|group| group.as_raw());
        Ok((
            account.uid.as_raw(),
            account.gid.as_raw(),
            groups.collect(),
            account.home,
        ))
    }

    #[test]
    fn finds_users_by_name_and_by_number() {
        let ada = (1000, 100, vec![44], "/home/ada".to_owned());
        assert_eq!(find("ada").unwrap(), ada);
        assert_eq!(find("1000").unwrap(), ada);
        assert_eq!(find("ada:video").unwrap().1, 44);
        assert_eq!(find("7:8").unwrap(), (7, 8, vec![], "/".into()));
        assert_eq!(find("7").unwrap().1, 7);
        for (user, named) in [("eve", "eve"), ("", "user"), ("ada:wheel", "wheel")] {
            let error = find(user).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
