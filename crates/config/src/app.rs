//! A configuration with types: what fly.toml says.
//!
//! Made by [`crate::load`]; written by [`crate::write`]. Serialises as the JSON form of fly.toml,
//! in which it is stored with each release.

mod address;
mod check;
mod machine;
mod service;

pub use address::IpKind;
pub use check::{CheckSection, HttpCheck, MachineCheck, TcpCheck};
pub use machine::{FileSection, Metrics, Mount, Restart, Static, Vm};
pub use service::{
    Concurrency, HttpOptions, HttpResponse, HttpService, Port, ProxyProto, ReplayCache,
    ServiceSection, TlsOptions,
};

use crate::schema::{always_of, key_of, kind_type, kind_value, section};

section! {
    /// The whole file.
    AppConfig {
        /// The app's name.
        app: Text;
        /// Where new Machines and volumes go; the app sees it as `PRIMARY_REGION`.
        primary_region: Text;
        /// Signal that stops a Machine; SIGINT where it is absent.
        kill_signal: TextPtr;
        /// Time between that signal and SIGKILL: 5 s where it is absent, at most 300 s. A bare number counts seconds.
        kill_timeout: Duration;
        /// Swap of a Machine, in MB.
        swap_size_mb: IntPtr;
        /// The command of `console`, split into words without a shell.
        console_command: Text;
        /// Old and rarely needed settings.
        experimental: Table(Experimental);
        /// Where the image comes from.
        build: Table(Build);
        /// How a deploy replaces Machines.
        deploy: Table(Deploy);
        /// Environment variables of every Machine.
        env: TextMap;
        /// The process groups: name and command. Where there is none, the one group is `app` and the image says what runs.
        processes: TextMap;
        /// Volumes.
        mounts: List(Mount);
        /// Shorthand for a web service on ports 80 and 443.
        http_service: Table(HttpService);
        /// Services.
        services: List(ServiceSection);
        /// Checks that gate a deploy and are shown, by name.
        checks: Named(CheckSection);
        /// Files that are written into Machines before they start.
        files: List(FileSection);
        /// A pool of dedicated hosts.
        host_dedication_id: Text;
        /// A Machine configuration, as JSON or the name of a file with it, that the rest is laid over.
        machine_config: Text;
        /// Which of several containers is the app's.
        container: Text;
        /// Test Machines of every group.
        machine_checks: List(MachineCheck);
        /// What happens when the process exits.
        restart: List(Restart);
        /// Sizes of Machines.
        vm: List(Vm);
        /// Files that are served without the app.
        statics: List(Static);
        /// Prometheus endpoints.
        metrics: List(Metrics);
    }
}

section! {
    /// Old and rarely needed settings.
    Experimental {
        /// Instead of the image's CMD, where the group has no command. Not split into words.
        cmd: Texts;
        /// Instead of the image's ENTRYPOINT, in all groups.
        entrypoint: Texts;
        /// Instead of both, in all groups.
        exec: Texts;
        /// Put former versions back when a deploy fails.
        auto_rollback: Flag;
        /// Join a Consul cluster.
        enable_consul: Flag;
        /// Join an etcd cluster.
        enable_etcd: Flag;
        /// Start before the image is complete.
        lazy_load_images: Flag;
        /// Secrets of attached apps.
        attached: Table(Attached), Json;
        /// The same key of the top level, and wins over it.
        machine_config: Text;
    }
}

section! {
    /// Secrets of attached apps.
    Attached {
        /// The secrets.
        secrets: Table(AttachedSecrets), Json;
    }
}

section! {
    /// Secrets of attached apps.
    AttachedSecrets {
        /// Names here to names there.
        export: TextMap;
    }
}

section! {
    /// Where the image comes from: one of `image`, `dockerfile`, or a builder.
    Build {
        /// A buildpack builder.
        builder: Text;
        /// Build arguments.
        args: TextMap;
        /// Buildpacks.
        buildpacks: Texts;
        /// An image that is ready.
        image: Text;
        /// Settings of the builtin builder.
        settings: AnyMap;
        /// A builtin builder.
        builtin: Text;
        /// Path or URL of a Dockerfile.
        dockerfile: Text;
        /// Path of an ignore file.
        ignorefile: Text;
        /// The stage to build.
        target = "build-target": Text;
        /// Containers from a Compose file.
        compose: Table(Compose);
        /// How layers are compressed: gzip or zstd.
        compression: Text;
        /// How hard, from 0 to 9.
        compression_level: IntPtr;
    }
}

section! {
    /// Containers from a Compose file.
    Compose {
        /// Its path; where it is absent, a well-known name beside fly.toml.
        file: Text;
    }
}

section! {
    /// How a deploy replaces Machines.
    Deploy {
        /// rolling (default), canary, immediate or bluegreen.
        strategy: Text;
        /// For rolling, of each group: a share below 1, or a number of Machines; 0.33 where it is absent.
        max_unavailable: FloatPtr;
        /// Time that one Machine may take to start and pass its checks; 5 minutes where it is absent.
        wait_timeout: Duration;
        /// A command that runs once in a Machine of its own before anything is replaced, split into words without a shell.
        release_command: Text;
        /// Time that it may take; 5 minutes where it is absent, 0 for ever.
        release_command_timeout: Duration;
        /// The size of its Machine.
        release_command_vm: Table(Vm);
        /// A command that `launch` runs once after the first deploy.
        seed_command: Text;
    }
}

impl AppConfig {
    /// Returns the paths of the files beside fly.toml that Machines are to get: the caller reads
    /// them and passes them on as [`crate::Inputs::files`].
    #[must_use]
    pub fn local_files(&self) -> Vec<&str> {
        let paths = self.files.iter().filter_map(|f| f.local_path.as_deref());
        paths.collect()
    }

    /// Returns the image that `[build]` names.
    #[must_use]
    pub fn image(&self) -> Option<&str> {
        self.build.as_ref()?.image.as_deref()
    }
}
