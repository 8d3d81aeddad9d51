//! The rows of Machines and their metadata.

use super::super::answers::{
    Done, LeaseReleased, Leased, MachineRow, MetadataValue, Started, Waited,
};
use super::super::described::doc;
use super::super::guard::Need::{App, Exec, Machine, MachineList};
use super::super::{lease, machines, metadata, ops, session, usage};
use super::{
    CONTROL, DELETE, GET, HOST, METHOD_DELETE, PAGED, PATCH, POST, PUT, READ, Row, WRITE, on,
    with_files,
};

pub(super) fn machine_rows() -> Vec<Row> {
    [
        fleet_rows(),
        usage_rows(),
        op_rows(),
        session_rows(),
        lease_rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn fleet_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "",
            MachineList,
            machines::list,
            doc("Machines_list", "List Machines")
                .more(
                    "`metadata.KEY=VALUE` in the query lists only those with \
                 that metadata.",
                )
                .gives::<Vec<MachineRow>>()
                .tells(PAGED),
        ),
        with_files(on(
            POST,
            "",
            App(WRITE),
            machines::create,
            doc("Machines_create", "Create a Machine").fails(&[403, 408, 412, 422, 501]),
        )),
        on(
            GET,
            "/{machine}",
            Machine(READ),
            machines::show,
            doc("Machines_show", "Get a Machine"),
        ),
        with_files(on(
            POST,
            "/{machine}",
            Machine(WRITE),
            machines::update,
            doc("Machines_update", "Update a Machine").fails(&[408, 412, 422, 501]),
        )),
        on(
            METHOD_DELETE,
            "/{machine}",
            Machine(DELETE),
            machines::destroy,
            doc("Machines_delete", "Destroy a Machine")
                .gives::<Done>()
                .fails(&[412]),
        ),
        on(
            GET,
            "/{machine}/events",
            Machine(READ),
            machines::events,
            doc("Machines_list_events", "List the events of a Machine"),
        ),
        on(
            GET,
            "/{machine}/versions",
            Machine(READ),
            machines::versions,
            doc("Machines_list_versions", "List the versions of a Machine"),
        ),
    ]
}

fn usage_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "/{machine}/ps",
            Machine(READ),
            usage::processes,
            doc("Machines_list_processes", "List the processes of a Machine").fails(HOST),
        ),
        on(
            GET,
            "/{machine}/memory",
            Machine(READ),
            usage::memory,
            doc("Machines_get_memory", "Get the memory of a Machine").fails(HOST),
        ),
        on(
            PUT,
            "/{machine}/memory",
            Machine(WRITE),
            usage::set_memory,
            doc("Machines_set_memory_limit", "Limit the memory of a Machine").fails(HOST),
        ),
        on(
            POST,
            "/{machine}/memory/reclaim",
            Machine(WRITE),
            usage::reclaim,
            doc("Machines_reclaim_memory", "Take back memory from a Machine").fails(HOST),
        ),
    ]
}

fn op_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "/{machine}/wait",
            Machine(READ),
            ops::wait,
            doc("Machines_wait", "Wait for a state")
                .more(
                    "408 when the time is over. It may take as long as \
                 `timeout` says.",
                )
                .gives::<Waited>()
                .fails(&[408, 412, 503]),
        ),
        on(
            POST,
            "/{machine}/start",
            Machine(CONTROL),
            ops::start,
            doc("Machines_start", "Start a Machine")
                .gives::<Started>()
                .fails(&[412]),
        ),
        on(
            POST,
            "/{machine}/stop",
            Machine(CONTROL),
            ops::stop,
            doc("Machines_stop", "Stop a Machine")
                .gives::<Done>()
                .fails(&[412]),
        ),
        on(
            POST,
            "/{machine}/suspend",
            Machine(CONTROL),
            ops::suspend,
            doc("Machines_suspend", "Suspend a Machine")
                .gives::<Done>()
                .fails(&[412]),
        ),
        on(
            POST,
            "/{machine}/restart",
            Machine(CONTROL),
            ops::restart,
            doc("Machines_restart", "Restart a Machine")
                .gives::<Done>()
                .fails(&[412]),
        ),
        on(
            POST,
            "/{machine}/signal",
            Machine(CONTROL),
            ops::signal,
            doc("Machines_signal", "Send a signal to a Machine")
                .gives::<Done>()
                .fails(&[412]),
        ),
        on(
            POST,
            "/{machine}/exec",
            Exec,
            ops::exec,
            doc("Machines_exec", "Run a command in a Machine").fails(HOST),
        ),
    ]
}

fn session_rows() -> Vec<Row> {
    vec![
        on(
            POST,
            "/{machine}/session",
            Exec,
            session::open,
            doc("Machines_session", "Run a command whose streams stay open")
                .more("The connection becomes `hangar-session/1`.")
                .status(101)
                .fails(HOST),
        ),
        on(
            GET,
            "/{machine}/tunnel",
            Machine(WRITE),
            session::tunnel,
            doc("Machines_tunnel", "Connect to a port of a Machine")
                .more("The connection becomes `hangar-tunnel/1`.")
                .status(101)
                .query(&[("port", "integer!", "The port, 1 to 65535.")])
                .fails(HOST),
        ),
        on(
            POST,
            "/{machine}/cordon",
            Machine(CONTROL),
            ops::cordon,
            doc("Machines_cordon", "Keep a Machine out of the proxy").gives::<Done>(),
        ),
        on(
            POST,
            "/{machine}/uncordon",
            Machine(CONTROL),
            ops::uncordon,
            doc("Machines_uncordon", "Let a Machine into the proxy again").gives::<Done>(),
        ),
    ]
}

fn lease_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "/{machine}/lease",
            Machine(READ),
            lease::show,
            doc("Machines_show_lease", "Get the lease of a Machine").gives::<Leased>(),
        ),
        on(
            POST,
            "/{machine}/lease",
            Machine(CONTROL),
            lease::take,
            doc("Machines_create_lease", "Take or refresh a lease")
                .status(201)
                .gives::<Leased>(),
        ),
        on(
            METHOD_DELETE,
            "/{machine}/lease",
            Machine(CONTROL),
            lease::release,
            doc("Machines_release_lease", "Give up a lease").gives::<LeaseReleased>(),
        ),
    ]
}

pub(super) fn metadata_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "",
            Machine(READ),
            metadata::all,
            doc("Machines_show_metadata", "Get the metadata of a Machine"),
        ),
        on(
            PATCH,
            "",
            Machine(WRITE),
            metadata::merge,
            doc("Machines_patch_metadata", "Change metadata")
                .status(204)
                .fails(&[412]),
        ),
        on(
            PUT,
            "",
            Machine(WRITE),
            metadata::merge,
            doc("Machines_update_metadata", "Change metadata")
                .status(204)
                .fails(&[412]),
        ),
        on(
            GET,
            "/{key}",
            Machine(READ),
            metadata::show,
            doc("Machines_get_metadata_key", "Get one key").gives::<MetadataValue>(),
        ),
        on(
            POST,
            "/{key}",
            Machine(WRITE),
            metadata::set,
            doc("Machines_upsert_metadata", "Set one key")
                .status(204)
                .fails(&[412]),
        ),
        on(
            METHOD_DELETE,
            "/{key}",
            Machine(WRITE),
            metadata::unset,
            doc("Machines_delete_metadata", "Remove one key")
                .status(204)
                .fails(&[412]),
        ),
    ]
}
