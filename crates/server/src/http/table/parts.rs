//! The rows of what an app has beside its Machines: volumes and certificates.

use super::super::answers::{Done, VolumeRow};
use super::super::described::{Asked, doc};
use super::super::guard::Need::{App, Volume};
use super::super::{certificates, volumes};
use super::{DELETE, GET, METHOD_DELETE, PAGED, POST, PUT, READ, Row, WRITE, on};

/// What a page of certificates is chosen by.
const CERTIFICATES: &[Asked] = &[
    ("filter", "text", "Only hostnames that hold this."),
    (
        "cursor",
        "text",
        "Where the page begins: `next_cursor` of the one before.",
    ),
    ("limit", "integer", "Rows of a page."),
];

pub(super) fn volume_rows() -> Vec<Row> {
    [whole_volume_rows(), snapshot_rows()]
        .into_iter()
        .flatten()
        .collect()
}

fn whole_volume_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "",
            App(READ),
            volumes::list,
            doc("Volumes_list", "List volumes")
                .gives::<Vec<VolumeRow>>()
                .tells(PAGED),
        ),
        on(
            POST,
            "",
            App(WRITE),
            volumes::create,
            doc("Volumes_create", "Create a volume").fails(&[412, 422]),
        ),
        on(
            GET,
            "/{volume}",
            Volume(READ),
            volumes::show,
            doc("Volumes_get_by_id", "Get a volume"),
        ),
        on(
            PUT,
            "/{volume}",
            Volume(WRITE),
            volumes::update,
            doc("Volumes_update", "Update a volume").fails(&[422]),
        ),
        on(
            METHOD_DELETE,
            "/{volume}",
            Volume(DELETE),
            volumes::destroy,
            doc("Volume_delete", "Destroy a volume").fails(&[412]),
        ),
        on(
            PUT,
            "/{volume}/extend",
            Volume(WRITE),
            volumes::extend,
            doc("Volumes_extend", "Extend a volume").fails(&[412, 422]),
        ),
    ]
}

fn snapshot_rows() -> Vec<Row> {
    vec![
        on(
            GET,
            "/{volume}/snapshots",
            Volume(READ),
            volumes::snapshots,
            doc("Volumes_list_snapshots", "List the snapshots of a volume"),
        ),
        on(
            POST,
            "/{volume}/snapshots",
            Volume(WRITE),
            volumes::snapshot,
            doc("createVolumeSnapshot", "Create a snapshot").fails(&[412]),
        ),
        on(
            METHOD_DELETE,
            "/{volume}/snapshots/{snapshot}",
            Volume(WRITE),
            volumes::remove_snapshot,
            doc("Volumes_delete_snapshot", "Delete a snapshot")
                .gives::<Done>()
                .fails(&[412]),
        ),
    ]
}

pub(super) fn certificate_rows() -> Vec<Row> {
    [hostname_rows(), check_rows()]
        .into_iter()
        .flatten()
        .collect()
}

fn hostname_rows() -> Vec<Row> {
    use certificates as c;
    vec![
        on(
            GET,
            "",
            App(READ),
            c::list,
            doc("App_Certificates_list", "List the certificates of an app").query(CERTIFICATES),
        ),
        on(
            POST,
            "/acme",
            App(WRITE),
            c::add,
            doc("App_Certificates_acme_create", "Add a hostname")
                .status(201)
                .fails(&[422, 501]),
        ),
        on(
            POST,
            "/custom",
            App(WRITE),
            c::import,
            doc("App_Certificates_custom_create", "Import a certificate")
                .status(201)
                .fails(&[422]),
        ),
        on(
            GET,
            "/{hostname}",
            App(READ),
            c::show,
            doc("App_Certificates_show", "Get a certificate").fails(&[422]),
        ),
        on(
            METHOD_DELETE,
            "/{hostname}",
            App(WRITE),
            c::remove,
            doc(
                "App_Certificates_delete",
                "Remove a hostname and its certificates",
            )
            .status(204)
            .fails(&[422]),
        ),
    ]
}

fn check_rows() -> Vec<Row> {
    use certificates as c;
    vec![
        on(
            POST,
            "/{hostname}/check",
            App(READ),
            c::check,
            doc("App_Certificates_check", "Look up how a hostname stands").fails(&[422]),
        ),
        on(
            METHOD_DELETE,
            "/{hostname}/acme",
            App(WRITE),
            c::remove_acme,
            doc(
                "App_Certificates_acme_delete",
                "Remove what ACME would issue",
            )
            .fails(&[422]),
        ),
        on(
            METHOD_DELETE,
            "/{hostname}/custom",
            App(WRITE),
            c::remove_custom,
            doc(
                "App_Certificates_custom_delete",
                "Remove an imported certificate",
            )
            .fails(&[422]),
        ),
    ]
}
