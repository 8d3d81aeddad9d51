//! What `launch` makes of a folder or an image (issue item 11): a Dockerfile, a Procfile, a Compose
//! file, a Cargo project, in this order.

use std::collections::BTreeMap;

use super::draft::{Draft, HttpService, Mount, Vm};
use super::{Converted, ConvertedApp, Unreadable, dockerfile, procfile, volume_name};

/// What there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folder {
    /// An image that is named instead of built, as it stands in fly.toml.
    pub(crate) image: Option<String>,
    /// Whether an image comes from elsewhere, such as an archive that is sent.
    pub(crate) brings_image: bool,
    /// Name and text of a Dockerfile.
    pub(crate) dockerfile: Option<(String, String)>,
    /// The text of a Procfile.
    pub(crate) procfile: Option<String>,
    /// The text of an app.json.
    pub(crate) app_json: Option<String>,
    /// The name of a Compose file.
    pub(crate) compose: Option<String>,
    /// Whether there is a Cargo.toml.
    pub(crate) cargo: bool,
}

/// What the user wants of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) name: String,
    pub(crate) region: Option<String>,
    pub(crate) internal_port: Option<u16>,
    pub(crate) vm: Option<Vm>,
    pub(crate) env: BTreeMap<String, String>,
}

/// The size of an app that says nothing of it, as Fly's `launch` gives it.
const MEMORY_MB: u64 = 1024;

/// Returns what the folder becomes, and what that was made of, in words.
pub(crate) fn convert(folder: &Folder, wish: &Wish) -> Result<(Converted, String), Unreadable> {
    let from = source(folder)?;
    let file = folder.dockerfile.as_ref().filter(|_| !folder.has_image());
    let said = file
        .map(|(_, text)| dockerfile::read(text))
        .unwrap_or_default();
    let exposed = wish.internal_port.or(said.exposed.first().copied());
    let mut out = match &folder.procfile {
        Some(text) => procfile::convert(&procfile::Source {
            procfile: text,
            app_json: folder.app_json.as_deref(),
            name: &wish.name,
            exposed,
            builds: folder.has_image() || file.is_some() || folder.cargo,
        })?,
        None => plain(exposed),
    };
    if said.exposed.len() > 1 && wish.internal_port.is_none() {
        let ports: Vec<String> = said.exposed.iter().map(ToString::to_string).collect();
        out.note(
            "EXPOSE",
            format!(
                "ports {} are exposed: the first is served, others need [[services]]",
                ports.join(", ")
            ),
        );
    }
    if let Some(app) = out.apps.last_mut() {
        wish.name.clone_into(&mut app.draft.app);
        finish(&mut app.draft, folder, wish);
    }
    mounts(&said.volumes, &mut out);
    if let Some(compose) = &folder.compose {
        out.note(
            compose,
            format!("is not read: `hangar migrate compose {compose}` makes apps of its services"),
        );
    }
    Ok((out, from))
}

/// Returns what an app is made of, in words; an error where there is nothing.
fn source(folder: &Folder) -> Result<String, Unreadable> {
    let image = folder.image.as_ref().map(|image| format!("image {image}"));
    let sent = folder
        .brings_image
        .then(|| "the image's archive".to_owned());
    let file = folder.dockerfile.as_ref().map(|(name, _)| name.clone());
    let cargo = folder.cargo.then(|| "Cargo.toml".to_owned());
    let built = image.or(sent).or(file).or(cargo);
    let procfile = folder.procfile.as_ref().map(|_| "Procfile".to_owned());
    let parts: Vec<String> = built.into_iter().chain(procfile).collect();
    if parts.is_empty() {
        return Err(Unreadable(
            "there is nothing to launch: no Dockerfile, Procfile, Compose file or Cargo.toml, and no --image"
                .to_owned(),
        ));
    }
    Ok(parts.join(" and "))
}

/// Returns an app of one group that serves HTTP.
fn plain(exposed: Option<u16>) -> Converted {
    let draft = Draft {
        http_service: Some(HttpService {
            internal_port: exposed.unwrap_or(procfile::DEFAULT_PORT),
            auto_start_machines: Some(true),
            ..HttpService::default()
        }),
        ..Draft::default()
    };
    Converted {
        apps: vec![ConvertedApp {
            draft,
            ..ConvertedApp::default()
        }],
        notes: Vec::new(),
    }
}

fn finish(draft: &mut Draft, folder: &Folder, wish: &Wish) {
    draft.primary_region.clone_from(&wish.region);
    draft.build.image.clone_from(&folder.image);
    if !folder.has_image()
        && let Some((name, _)) = &folder.dockerfile
        && name != "Dockerfile"
    {
        draft.build.dockerfile = Some(name.clone());
    }
    draft.env.extend(wish.env.clone());
    if let (Some(port), Some(service)) = (wish.internal_port, &mut draft.http_service) {
        service.internal_port = port;
    }
    match &wish.vm {
        Some(vm) => draft.vm = vec![vm.clone()],
        None if draft.vm.is_empty() => draft.vm.push(Vm::sized("shared", 1, MEMORY_MB)),
        None => {}
    }
}

/// Gives what a Compose file became what the user wants: the region to all apps, the rest to the
/// main one.
pub(crate) fn wish_for(converted: &mut Converted, wish: &Wish) {
    for app in &mut converted.apps {
        app.draft.primary_region.clone_from(&wish.region);
        if app.draft.vm.is_empty() {
            app.draft.vm.push(Vm::sized("shared", 1, MEMORY_MB));
        }
    }
    if let Some(app) = converted.apps.last_mut() {
        app.draft.env.extend(wish.env.clone());
        if let (Some(port), Some(service)) = (wish.internal_port, &mut app.draft.http_service) {
            service.internal_port = port;
        }
        if let Some(vm) = &wish.vm {
            app.draft.vm = vec![vm.clone()];
        }
    }
}

/// A Machine has one volume: the first one that the image wants.
fn mounts(volumes: &[String], out: &mut Converted) {
    let Some((first, others)) = volumes.split_first() else {
        return;
    };
    if let Some(app) = out.apps.last_mut() {
        app.draft.mounts.push(Mount {
            source: volume_name(first.rsplit('/').next().unwrap_or(first)),
            destination: first.clone(),
            ..Mount::default()
        });
    }
    for path in others {
        out.note(
            "VOLUME",
            format!("{path} gets no volume of its own: a Machine has one, at {first}; what is written there is lost with the Machine"),
        );
    }
}

// === impl Folder ===

impl Folder {
    /// Returns whether only a Compose file could say what the app is.
    pub(crate) fn is_bare(&self) -> bool {
        !self.has_image() && self.dockerfile.is_none() && self.procfile.is_none() && !self.cargo
    }

    fn has_image(&self) -> bool {
        self.image.is_some() || self.brings_image
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::testing::assert_valid;

    fn wish() -> Wish {
        Wish {
            name: "shop".to_owned(),
            region: Some("iad".to_owned()),
            ..Wish::default()
        }
    }

    #[test]
    fn a_dockerfile_says_its_port_and_its_volume() {
        let folder = Folder {
            dockerfile: Some((
                "Containerfile".to_owned(),
                "FROM x\nEXPOSE 3000 3001\nVOLUME /var/lib/data /other".to_owned(),
            )),
            compose: Some("compose.yaml".to_owned()),
            ..Folder::default()
        };
        let (converted, from) = convert(&folder, &wish()).unwrap();
        assert_valid(&converted);
        assert_eq!(from, "Containerfile");
        assert_eq!(
            converted.apps[0].draft.render(),
            "app = \"shop\"
primary_region = \"iad\"

[build]
dockerfile = \"Containerfile\"

[[mounts]]
source = \"data\"
destination = \"/var/lib/data\"

[http_service]
internal_port = 3000
auto_start_machines = true

[[vm]]
size = \"shared-cpu-1x\"
memory = \"1gb\"
"
        );
        let at: Vec<&str> = converted.notes.iter().map(|n| n.at.as_str()).collect();
        assert_eq!(at, ["EXPOSE", "VOLUME", "compose.yaml"]);
    }

    #[test]
    fn a_procfile_beside_it_gives_the_groups_and_flags_win() {
        let folder = Folder {
            image: Some("shop:1".to_owned()),
            procfile: Some("web: serve\nworker: work".to_owned()),
            ..Folder::default()
        };
        let wish = Wish {
            internal_port: Some(5000),
            vm: Some(Vm::sized("shared", 2, 512)),
            env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
            ..wish()
        };
        let (converted, from) = convert(&folder, &wish).unwrap();
        assert_valid(&converted);
        assert_eq!(from, "image shop:1 and Procfile");
        let draft = &converted.apps[0].draft;
        assert_eq!(draft.http_service.as_ref().unwrap().internal_port, 5000);
        assert_eq!(draft.env["PORT"], "5000");
        assert_eq!(draft.vm, [Vm::sized("shared", 2, 512)]);
        assert_eq!(draft.processes.len(), 2);
        assert!(converted.notes.is_empty(), "{:?}", converted.notes);
    }

    #[test]
    fn an_empty_folder_is_refused_in_words() {
        let error = convert(&Folder::default(), &wish()).unwrap_err();
        assert!(error.0.contains("--image"), "{error}");
    }
}
