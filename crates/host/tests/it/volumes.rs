//! The promises of whatever keeps volumes, tried on the fake and on real images.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use hangar_api::env::Env;
use hangar_api::id::VolumeId;
use hangar_host::runtime::container::{ContainerRuntime, Settings};
use hangar_host::volumes::fake::FakeVolumes;
use hangar_testkit::conformance::volumes::{Subject, run};

#[tokio::test]
async fn the_fake_keeps_the_promises_of_volumes() {
    let disk = FakeVolumes::new(1 << 40);
    let (writes, reads) = (disk.clone(), disk.clone());
    run(&Subject {
        open: Box::new(move || Arc::new(disk.clone())),
        write: Box::new(move |volume, text| writes.write(volume, text)),
        read: Box::new(move |volume| reads.read(volume)),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_keep_the_promises_of_volumes() {
    if let Some(why) = lacking() {
        return eprintln!("skipped: {why}");
    }
    let dir = tempfile::tempdir().unwrap();
    let (data, at) = (dir.path().to_owned(), dir.path().join("mounted"));
    std::fs::create_dir(&at).unwrap();
    let open = move || -> Arc<dyn hangar_api::seam::VolumeCalls> {
        let settings = Settings {
            data_dir: data.clone(),
            executable: PathBuf::from(env!("CARGO_BIN_EXE_hangar-roles")),
            connect: false,
            api: None,
        };
        ContainerRuntime::new(Env::real(), &settings)
            .unwrap()
            .volumes()
    };
    let image = {
        let data = dir.path().to_owned();
        move |id: &VolumeId| data.join("volumes").join(format!("{id}.img"))
    };
    let (image_too, at_too) = (image.clone(), at.clone());
    run(&Subject {
        open: Box::new(open),
        write: Box::new(move |id, text| {
            mounted(&image_too(id), &at_too, |root| {
                std::fs::write(root.join("text"), text).unwrap();
            });
        }),
        read: Box::new(move |id| {
            let image = image(id);
            let read = |root: &Path| std::fs::read_to_string(root.join("text")).unwrap();
            image.exists().then(|| mounted(&image, &at, read))
        }),
    })
    .await;
}

/// Returns what keeps volumes from being made here.
fn lacking() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root");
    }
    let missing = !Path::new("/dev/loop-control").exists();
    missing.then_some("needs loop devices (modprobe loop)")
}

/// Does something with a volume that no Machine has, as a person would.
fn mounted<T>(image: &Path, at: &Path, act: impl Fn(&Path) -> T) -> T {
    let run = |program: &str, words: &[&std::ffi::OsStr]| {
        let status = Command::new(program).args(words).status().unwrap();
        assert!(status.success(), "{program} {words:?}");
    };
    run(
        "mount",
        &["-o".as_ref(), "loop".as_ref(), image.as_ref(), at.as_ref()],
    );
    let done = act(at);
    run("umount", &[at.as_ref()]);
    done
}
