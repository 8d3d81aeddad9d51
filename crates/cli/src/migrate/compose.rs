//! Compose files: services of one image become process groups of one app, others apps of their own.

mod health;
mod interpolate;
mod ports;
mod read;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

pub(crate) use interpolate::env_file;
pub(super) use ports::is_http;

use super::service::{Service, apps};
use super::value::{self, table, text, texts};
use super::{Converted, Unreadable, app_name, yaml};

/// What is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// The project's name, which the file may change.
    pub(crate) name: &'a str,
    /// A name that the file does not change.
    pub(crate) rename: Option<&'a str>,
    /// The file's text.
    pub(crate) text: &'a str,
    /// What `.env` sets.
    pub(crate) variables: &'a BTreeMap<String, String>,
    /// The texts of env files, by the path in the file; see [`env_files`].
    pub(crate) files: &'a BTreeMap<String, String>,
}

/// Returns the paths of the env files that a Compose file names.
pub(crate) fn env_files(text: &str) -> Result<Vec<String>, Unreadable> {
    let tree = yaml::parse(text)?;
    let mut paths = BTreeSet::new();
    for service in table(&tree["services"]).values() {
        let listed = &service["env_file"];
        paths.extend(texts(listed));
        let long = listed.as_array().into_iter().flatten();
        paths.extend(long.filter_map(|item| value::text(&item["path"])));
    }
    Ok(paths.into_iter().collect())
}

/// Makes fly.tomls of a Compose file.
pub(crate) fn convert(source: &Source<'_>) -> Result<Converted, Unreadable> {
    let mut tree = yaml::parse(source.text)?;
    let mut missing = Vec::new();
    interpolate::fill_tree(&mut tree, "", source.variables, &mut missing);
    let Some(services) = tree["services"].as_object().filter(|map| !map.is_empty()) else {
        return Err(Unreadable("it names no services".to_owned()));
    };
    let mut out = Converted::default();
    for (at, name) in missing {
        out.note(
            at,
            format!("{name} has no value in .env: an empty text stands for it"),
        );
    }
    let said = text(&tree["name"]).and_then(|name| app_name(&name));
    let project = source.rename.map(str::to_owned).or(said);
    let project = project.unwrap_or_else(|| source.name.to_owned());
    top_level(table(&tree), &mut out);
    let services: Vec<Service> = services
        .iter()
        .map(|(name, value)| read::service(name, value, source, &mut out))
        .collect();
    apps(services, &project, &mut out);
    Ok(out)
}

fn top_level(tree: &Map<String, Value>, out: &mut Converted) {
    for (key, value) in tree {
        match key.as_str() {
            "services" | "name" | "version" => {}
            key if key.starts_with("x-") || value::is_empty(value) => {}
            "volumes" => {
                for (name, volume) in table(value).iter().filter(|(_, v)| !value::is_empty(v)) {
                    out.note(
                        format!("volumes.{name}"),
                        format!("{volume}: volumes are Hangar's own; what is in this one has to be copied over"),
                    );
                }
            }
            "networks" => out.note("networks", "all apps here share one private network: who is reached is for the services to say"),
            "secrets" | "configs" => out.note(key, "their contents are not read: see the services that use them"),
            "include" => out.note("include", "is not read: `docker compose config` writes all into one file"),
            key => out.note(key, "has no counterpart here"),
        }
    }
}
