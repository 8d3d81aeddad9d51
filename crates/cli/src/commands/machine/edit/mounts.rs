//! What flags make of a Machine's mounts (process-groups-and-deploy.md 6.1 to 6.3).
//!
//! Pure. Which volume a name means, and that nobody else has it, is decided by the server when the
//! Machine is created.

use hangar_api::id::VolumeId;
use hangar_api::machine::Mount;

/// What begins the id of a volume.
const ID: &str = "vol_";

/// Returns the mounts with those of `--volume VOLUME:PATH[:OPTIONS]` added; one at the same path
/// takes the other volume.
pub(in crate::commands) fn apply(
    mut mounts: Vec<Mount>,
    flags: &[String],
    notes: &mut Vec<String>,
) -> Result<Vec<Mount>, String> {
    for flag in flags {
        let mut parts = flag.splitn(3, ':');
        let (volume, path) = (parts.next().unwrap_or_default(), parts.next());
        let Some(path) = path.filter(|path| !volume.is_empty() && !path.is_empty()) else {
            return Err(format!(
                "Can't infer volume and mount path from '{flag}': write VOLUME:/path/inside"
            ));
        };
        if let Some(options) = parts.next().filter(|options| !options.is_empty()) {
            notes.push(format!(
                "The options '{options}' of volume {volume} are not used"
            ));
        }
        match mounts.iter_mut().find(|mount| mount.path == path) {
            Some(there) => *there = named(there.clone(), volume),
            None => mounts.push(Mount {
                path: path.to_owned(),
                ..named(Mount::default(), volume)
            }),
        }
    }
    Ok(mounts)
}

fn named(mount: Mount, volume: &str) -> Mount {
    Mount {
        volume: volume.to_owned(),
        // What is known of a volume is the server's to say.
        name: String::new(),
        size_gb: None,
        encrypted: None,
        ..mount
    }
}

/// Returns the names, not ids, that mounts ask for.
pub(in crate::commands) fn by_name(mounts: &[Mount]) -> impl Iterator<Item = &str> {
    let asked = mounts.iter().map(|mount| match mount.volume.as_str() {
        "" => mount.name.as_str(),
        volume => volume,
    });
    asked.filter(|volume| !volume.starts_with(ID))
}

/// Puts a Machine's volume at another path.
pub(in crate::commands) fn move_to(mounts: &mut [Mount], path: &str) -> Result<(), String> {
    let [mount] = mounts else {
        return Err("Machine doesn't have a volume attached".to_owned());
    };
    path.clone_into(&mut mount.path);
    Ok(())
}

/// `--attach-volume VOLUME[:PATH]` of a clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::commands) struct Attach {
    pub(in crate::commands) volume: VolumeId,
    pub(in crate::commands) path: Option<String>,
}

// === impl Attach ===

impl Attach {
    pub(in crate::commands) fn parse(text: &str) -> Result<Self, String> {
        let (volume, path) = match text.split_once(':') {
            Some((volume, path)) => (volume, Some(path)),
            None => (text, None),
        };
        let volume = VolumeId::new(volume).map_err(|_| {
            format!("--attach-volume {text:?}: {volume:?} is no id of a volume; see `hangar volumes list`")
        })?;
        if path == Some("") {
            return Err(format!(
                "--attach-volume {text:?}: a path is missing behind the colon"
            ));
        }
        Ok(Self {
            volume,
            path: path.map(str::to_owned),
        })
    }

    /// Returns the clone's mounts, and what is to be said about them.
    pub(in crate::commands) fn mounts(
        &self,
        source: &[Mount],
    ) -> Result<(Vec<Mount>, Option<String>), String> {
        match (source, &self.path) {
            ([], None) => Err(format!(
                "Please specify a mount path on '{0}' using {0}:/path/inside/machine",
                self.volume
            )),
            ([], Some(path)) => {
                let mount = Mount {
                    path: path.clone(),
                    ..named(Mount::default(), self.volume.as_str())
                };
                Ok((vec![mount], None))
            }
            ([one], path) => {
                let mut mount = named(one.clone(), self.volume.as_str());
                let note = path.as_ref().map(|path| {
                    format!(
                        "Info: --attach-volume is overriding previous mount point from `{}` to `{path}`.",
                        one.path
                    )
                });
                if let Some(path) = path {
                    mount.path.clone_from(path);
                }
                Ok((vec![mount], note))
            }
            _ => Err("Can't use --attach-volume for Machines with more than 1 volume.".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VOLUME: &str = "vol_0123456789abcdef";

    fn mount(volume: &str, path: &str) -> Mount {
        Mount {
            volume: volume.to_owned(),
            path: path.to_owned(),
            ..Mount::default()
        }
    }

    fn with(mounts: Vec<Mount>, flag: &str) -> Result<(Vec<Mount>, Vec<String>), String> {
        let mut notes = Vec::new();
        apply(mounts, &[flag.to_owned()], &mut notes).map(|mounts| (mounts, notes))
    }

    #[test]
    fn a_volume_is_named_by_its_id_or_name_and_takes_the_place_at_its_path() {
        let (mounts, notes) = with(Vec::new(), "data:/data").unwrap();
        assert_eq!((mounts, notes.len()), (vec![mount("data", "/data")], 0));
        let there = Mount {
            extend_threshold_percent: Some(80),
            size_gb: Some(3),
            name: "old".to_owned(),
            ..mount("vol_1", "/data")
        };
        let (mounts, notes) = with(vec![there], &format!("{VOLUME}:/data:ro")).unwrap();
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].volume, VOLUME);
        assert_eq!(mounts[0].extend_threshold_percent, Some(80));
        assert_eq!((mounts[0].size_gb, mounts[0].name.as_str()), (None, ""));
        assert!(notes[0].contains("'ro'"), "{notes:?}");
        let (mounts, _) = with(mounts, "more:/more").unwrap();
        assert_eq!(mounts.len(), 2);
        assert_eq!(by_name(&mounts).collect::<Vec<_>>(), ["more"]);
        for wrong in ["", "data", ":/data", "data:", ":"] {
            let error = with(Vec::new(), wrong).unwrap_err();
            assert!(error.contains("Can't infer volume"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_clone_takes_a_volume_at_its_sources_path_or_another() {
        let parse = |text: &str| Attach::parse(text).unwrap();
        let plain = parse(VOLUME);
        let source = [mount("vol_1", "/data")];
        let (mounts, note) = plain.mounts(&source).unwrap();
        assert_eq!((mounts, note), (vec![mount(VOLUME, "/data")], None));
        let moved = parse(&format!("{VOLUME}:/new"));
        let (mounts, note) = moved.mounts(&source).unwrap();
        assert_eq!(mounts, [mount(VOLUME, "/new")]);
        assert!(note.unwrap().contains("from `/data` to `/new`"));
        assert_eq!(moved.mounts(&[]).unwrap().0, [mount(VOLUME, "/new")]);
        let error = plain.mounts(&[]).unwrap_err();
        assert!(error.contains("Please specify a mount path"), "{error}");
        let two = [mount("a", "/a"), mount("b", "/b")];
        assert!(plain.mounts(&two).is_err());
        for wrong in ["data", "data:/data", "vol_0123456789abcdef:"] {
            assert!(Attach::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_mount_point_moves_only_where_there_is_one() {
        let mut one = [mount(VOLUME, "/data")];
        move_to(&mut one, "/new").unwrap();
        assert_eq!(one[0].path, "/new");
        assert!(
            move_to(&mut [], "/new")
                .unwrap_err()
                .contains("have a volume")
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z0-9_:/]{0,30}") {
            let _mounts = with(Vec::new(), &text);
            let _attach = Attach::parse(&text);
        }
    }
}
