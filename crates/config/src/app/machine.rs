//! What a Machine is made of: size, files, volumes, restarts, metrics.

use crate::schema::{always_of, key_of, kind_type, kind_value, section};

section! {
    /// A volume of each Machine of a group.
    Mount {
        /// The volume's name.
        source: Text;
        /// Where it is mounted.
        destination: Text;
        /// Its size when it is created: GB, or a text with a unit.
        initial_size: Text;
        /// Days that snapshots are kept, from 1 to 60; 5 where it is absent.
        snapshot_retention: IntPtr;
        /// Take a snapshot each day; yes where it is absent.
        scheduled_snapshots: FlagPtr;
        /// Extend it when so much of it is full, in percent, from 50 to 99.
        auto_extend_size_threshold: Int;
        /// By so much.
        auto_extend_size_increment: Text;
        /// Up to so much.
        auto_extend_size_limit: Text;
        /// The groups that have one.
        processes: Texts;
    }
}

section! {
    /// A file that is written into Machines: one of `local_path`, `secret_name` and `raw_value`.
    FileSection {
        /// Where it stands in the Machine.
        guest_path: Text;
        /// A file beside fly.toml.
        local_path: Text;
        /// A secret that holds the content in base64.
        secret_name: Text;
        /// The content.
        raw_value: Text;
        /// Without effect: every Machine gets every file, as on Fly.
        processes: Texts;
    }
}

section! {
    /// What happens when the process exits.
    Restart {
        /// always, never or on-failure.
        policy: Text;
        /// For on-failure: how often; 10 where it is absent.
        retries: Int;
        /// The groups it is for.
        processes: Texts;
    }
}

section! {
    /// The size of a Machine. One without `processes` is for every group that has no other.
    Vm {
        /// A preset such as shared-cpu-1x.
        size: Text;
        /// Memory: MB, or a text with a unit.
        memory: Text;
        /// shared or performance.
        cpu_kind: Text;
        /// Number of CPUs.
        cpus: Int;
        /// Memory in MB.
        memory_mb: Int;
        /// Memory that it may grow to, in MB.
        max_memory_mb: Int;
        /// Number of GPUs.
        gpus: Int;
        /// Kind of GPU.
        gpu_kind: Text;
        /// A pool of dedicated hosts.
        host_dedication_id: Text;
        /// Whether the root file system outlives a restart or an update.
        persist_rootfs: Persist;
        /// Arguments of the kernel.
        kernel_args: Texts;
        /// The groups it is for.
        processes: Texts;
    }
}

section! {
    /// Files of the image that are served without the app.
    Static {
        /// The folder in the image.
        guest_path: Text, Toml;
        /// What paths of requests begin with.
        url_prefix: Text, Toml;
        /// A bucket instead of the image.
        tigris_bucket: Text, Json;
        /// What a folder answers with.
        index_document: Text;
    }
}

section! {
    /// A Prometheus endpoint of each Machine.
    Metrics {
        /// Its port.
        port: Int;
        /// Its path.
        path: Text;
        /// Speak https.
        https: Flag;
        /// The groups that have it.
        processes: Texts;
    }
}
