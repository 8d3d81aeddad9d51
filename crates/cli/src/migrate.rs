//! From other platforms' files to fly.toml: text in, fly.toml text and a list of what could not be
//! carried over out (issue item 9).
//!
//! Pure: nothing here reads a file, asks a server or prints. [`crate::commands::migrate`] and
//! [`crate::commands::launch`] read what is there and write what comes out. Whatever a file says
//! ends in one of three places: the fly.toml, the counts and secrets that are set by command, or
//! the notes. Nothing is dropped in silence.

pub(crate) mod compose;
mod cron;
pub(crate) mod dockerfile;
pub(crate) mod draft;
pub(crate) mod fly;
pub(crate) mod folder;
pub(crate) mod nomad;
pub(crate) mod procfile;
mod service;
pub(crate) mod shell;
mod toml_text;
mod value;
mod yaml;

use std::collections::BTreeMap;

pub(crate) use draft::Draft;
use hangar_api::formation::{FormationUpdate, GroupUpdate, PoolUpdate};
use hangar_api::id::{GroupName, Region};
use hangar_api::machine::Schedule;

/// The comment above a variable that looks like a secret.
pub(crate) const SECRET_HERE: &str =
    "Looks like a secret: take it out here, and set it by `hangar secrets set`.";

/// What a conversion gives: one app or several, and what is left to a person.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Converted {
    /// The apps, in the order in which they are to be deployed; the main one is the last.
    pub(crate) apps: Vec<ConvertedApp>,
    /// What could not be carried over, or needs a person's eye.
    pub(crate) notes: Vec<Note>,
}

/// One app of a conversion.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ConvertedApp {
    /// Its fly.toml.
    pub(crate) draft: Draft,
    /// How many Machines groups are to have, where that was said.
    pub(crate) counts: BTreeMap<String, u64>,
    /// Regions for `scale count`, where there are several.
    pub(crate) regions: Vec<String>,
    /// Regions of groups of which others were said.
    pub(crate) pools: BTreeMap<String, Vec<String>>,
    /// Whether counts and regions come as a formation, in a file of its own.
    pub(crate) with_formation: bool,
    /// The folder, below the one that was read, that is built and gets the fly.toml.
    pub(crate) folder: Option<String>,
    /// Secrets that a person has to set.
    pub(crate) secrets: Vec<String>,
    /// Groups whose Machines get a schedule after the first deploy.
    pub(crate) schedules: BTreeMap<String, Schedule>,
}

/// Something that a person has to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// Where it stands in what was read, such as `services.db.networks`.
    pub(crate) at: String,
    /// What became of it, and what to do instead.
    pub(crate) text: String,
}

/// Why a file cannot be converted at all: the sentence says where and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreadable(pub(crate) String);

// === impl Converted ===

impl Converted {
    pub(crate) fn note(&mut self, at: impl Into<String>, text: impl Into<String>) {
        let note = Note {
            at: at.into(),
            text: text.into(),
        };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Writes who made it, and all notes, into the head of the main app's file.
    pub(crate) fn sign(&mut self, by: &str) {
        let mut header = vec![format!(
            "Made by `{by}`. Reference: docs/reference/fly-toml.md"
        )];
        if !self.notes.is_empty() {
            header.push("Not carried over, or to be looked at:".to_owned());
        }
        header.extend(self.notes.iter().map(|note| format!("- {note}")));
        if let Some(app) = self.apps.last_mut() {
            app.draft.header = header;
        }
    }

    /// Returns the paths of the files, in the order of the apps: the main one is `fly.toml`, one
    /// whose folder is built stands in that folder.
    pub(crate) fn file_names(&self) -> Vec<String> {
        let last = self.apps.len().saturating_sub(1);
        let mut names: Vec<String> = Vec::new();
        for (index, app) in self.apps.iter().enumerate() {
            let plain = match &app.folder {
                Some(folder) => format!("{folder}/fly.toml"),
                None => "fly.toml".to_owned(),
            };
            let main = index == last || app.folder.is_some();
            if main && !names.contains(&plain) {
                names.push(plain);
            } else {
                let folder = plain.trim_end_matches("fly.toml");
                names.push(format!("{folder}fly.{}.toml", app.draft.app));
            }
        }
        names
    }

    /// Returns the paths of the formations beside them, where there are such: `formation.json`
    /// beside `fly.toml`.
    pub(crate) fn formation_names(&self) -> Vec<Option<String>> {
        let name = |(app, name): (&ConvertedApp, String)| {
            let stem = name.strip_suffix(".toml")?;
            let (folder, file) = stem.rsplit_once('/').map_or(("", stem), |(a, b)| (a, b));
            let slash = if folder.is_empty() { "" } else { "/" };
            let rest = file.strip_prefix("fly").unwrap_or_default();
            app.formation()?;
            Some(format!("{folder}{slash}formation{rest}.json"))
        };
        self.apps.iter().zip(self.file_names()).map(name).collect()
    }
}

// === impl Note ===

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.at, self.text)
    }
}

// === impl ConvertedApp ===

impl ConvertedApp {
    /// Returns what each group should have; none where that is not to come as a file, or nothing
    /// was said. A group with volumes gets them from `scale count`, as many as it has Machines.
    pub(crate) fn formation(&self) -> Option<FormationUpdate> {
        let counts = self
            .counts
            .iter()
            .filter(|(group, _)| self.is_in_formation(group));
        let groups = counts.filter_map(|(group, count)| {
            let pool = self.pool(group).into_iter().map(Region::new);
            let pool = pool.collect::<Result<Vec<Region>, _>>().ok()?;
            let update = GroupUpdate {
                count: u32::try_from(*count).ok(),
                regions: (!pool.is_empty()).then_some(PoolUpdate::Spread(pool)),
                ..GroupUpdate::default()
            };
            Some((GroupName::new(group).ok()?, update))
        });
        let groups: BTreeMap<GroupName, GroupUpdate> = groups.collect();
        (!groups.is_empty()).then_some(FormationUpdate {
            groups,
            dry_run: false,
        })
    }

    fn is_in_formation(&self, group: &str) -> bool {
        let mut mounts = self.draft.mounts.iter();
        let has_volumes = mounts
            .any(|m| m.processes.is_empty() || m.processes.iter().any(|process| process == group));
        self.with_formation && (!has_volumes || self.counts.get(group) == Some(&0))
    }

    /// Returns where a group is to run: its own regions, those of the app, or the primary one.
    fn pool(&self, group: &str) -> Vec<&str> {
        let of_app = Some(&self.regions).filter(|regions| regions.len() > 1);
        match self.pools.get(group).or(of_app) {
            Some(regions) => regions.iter().map(String::as_str).collect(),
            None => self
                .draft
                .primary_region
                .iter()
                .map(String::as_str)
                .collect(),
        }
    }

    /// Returns the arguments of `scale count` that give groups their counts; none where nothing
    /// was said that the formation does not say.
    pub(crate) fn scale_arguments(&self) -> Option<String> {
        let counts = self
            .counts
            .iter()
            .filter(|(group, _)| !self.is_in_formation(group));
        let mut words: Vec<String> = counts
            .map(|(group, count)| format!("{group}={count}"))
            .collect();
        if words.is_empty() {
            return None;
        }
        if self.regions.len() > 1 {
            words.push(format!("--region {}", self.regions.join(",")));
        }
        Some(words.join(" "))
    }
}

/// Returns a text as an app's name: lower case, everything else a dash, as Fly's `launch` does it.
pub(crate) fn app_name(text: &str) -> Option<String> {
    let mut name = String::new();
    for c in text.chars().filter(char::is_ascii) {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.ends_with('-') {
            name.push('-');
        }
    }
    let name: String = name.trim_matches('-').chars().take(62).collect();
    let name = name.trim_matches('-').to_owned();
    (!name.is_empty()).then_some(name)
}

/// Returns a text as a process group's name, which is also a DNS label.
pub(crate) fn group_name(text: &str) -> String {
    app_name(text).unwrap_or_else(|| "app".to_owned())
}

/// Returns a text as a volume's name: letters, digits and underscores, at most 30.
pub(crate) fn volume_name(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
    }
    let name: String = name.chars().take(30).collect();
    let name = name.trim_matches('_').to_owned();
    if name.is_empty() {
        "data".to_owned()
    } else {
        name
    }
}

/// Returns whether a variable's name is one that secrets have.
pub(crate) fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    [
        "PASSWORD",
        "PASSWD",
        "SECRET",
        "TOKEN",
        "PRIVATE_KEY",
        "API_KEY",
        "APIKEY",
        "CREDENTIAL",
    ]
    .iter()
    .any(|word| name.contains(word))
        && !name.ends_with("_FILE")
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use hangar_config::Format;

    /// Checks that every fly.toml of a conversion can be read and is valid, but for what this
    /// Hangar names as not supported.
    pub(crate) fn assert_valid(converted: &Converted) {
        for app in &converted.apps {
            let text = app.draft.render();
            let loaded = hangar_config::load(&text, Format::Toml);
            let wrong: Vec<String> = loaded
                .problems
                .iter()
                .filter(|p| !p.message.starts_with("is not supported"))
                // A value that the other platform fills in is listed, and kept for a person to see.
                .filter(|p| {
                    p.stops_deploy() || p.message != "variables are not replaced in this file"
                })
                .map(ToString::to_string)
                .collect();
            assert!(wrong.is_empty(), "{wrong:#?}\n{text}");
        }
    }

    #[test]
    fn names_are_made_of_what_is_there() {
        assert_eq!(app_name("My Shop_2!"), Some("my-shop-2".to_owned()));
        assert_eq!(app_name("---"), None);
        assert_eq!(volume_name("./pg-data"), "pg_data");
        assert_eq!(volume_name("/"), "data");
        assert!(looks_secret("DB_PASSWORD") && !looks_secret("POSTGRES_PASSWORD_FILE"));
    }
}
