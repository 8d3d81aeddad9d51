//! What clients of Fly ask for and Hangar does not have: refused by the name of the field, before
//! the schema could only say that it does not know it.

use async_graphql::parser::types::{ExecutableDocument, Selection};

const WIREGUARD: &str = "Hangar has no WireGuard gateway: `hangar ssh console`, `hangar console`, \
     `hangar proxy` and `hangar logs` reach Machines without one";
const ADD_ONS: &str = "Hangar has no extensions: run the service as an app of its own";
const POSTGRES: &str = "Hangar has no managed Postgres: run it as an app of its own, and give \
     DATABASE_URL to those that use it with `secrets set`";
const BUILDERS: &str = "Hangar has no builders of its own: use --local-only with a local Docker, \
     --buildkit-addr or BUILDKIT_ADDR with a buildkitd, or --image";
const EGRESS: &str = "Hangar gives no addresses of their own to outgoing connections";
const MACHINES_API: &str = "this has moved to the Machines API under /v1, which newer clients use";
const REPLAYS: &str = "Hangar's proxy does not replay requests to other organisations";
const MOVING: &str = "an app stays in its organisation: deploy it anew in the other one";
const MEMBERS: &str = "Hangar keeps no users: who has a token of an organisation is a member; make \
     one with `tokens create org`";
const DOCTOR: &str = "Hangar takes no reports of `fly doctor`; see `hangar doctor`";

/// Root fields of Fly's schema that are not here, and why.
const ABSENT: [(&str, &str); 45] = [
    ("addWireGuardPeer", WIREGUARD),
    ("removeWireGuardPeer", WIREGUARD),
    ("validateWireGuardPeers", WIREGUARD),
    ("createDelegatedWireGuardToken", WIREGUARD),
    ("deleteDelegatedWireGuardToken", WIREGUARD),
    ("issueCertificate", WIREGUARD),
    ("addOn", ADD_ONS),
    ("addOns", ADD_ONS),
    ("addOnPlans", ADD_ONS),
    ("addOnProvider", ADD_ONS),
    ("createAddOn", ADD_ONS),
    ("updateAddOn", ADD_ONS),
    ("deleteAddOn", ADD_ONS),
    ("resetAddOnPassword", ADD_ONS),
    ("createExtensionTosAgreement", ADD_ONS),
    ("attachPostgresCluster", POSTGRES),
    ("detachPostgresCluster", POSTGRES),
    ("enablePostgresConsul", POSTGRES),
    ("postgresAttachments", POSTGRES),
    ("ensureMachineRemoteBuilder", BUILDERS),
    ("ensureDepotRemoteBuilder", BUILDERS),
    ("allocateEgressIpAddress", EGRESS),
    ("releaseEgressIpAddress", EGRESS),
    ("createApp", MACHINES_API),
    ("deleteApp", MACHINES_API),
    ("addCertificate", MACHINES_API),
    ("checkCertificate", MACHINES_API),
    ("deleteCertificate", MACHINES_API),
    ("createRelease", MACHINES_API),
    ("updateRelease", MACHINES_API),
    ("createBuild", MACHINES_API),
    ("finishBuild", MACHINES_API),
    ("lockApp", MACHINES_API),
    ("unlockApp", MACHINES_API),
    ("setVmCount", MACHINES_API),
    ("appNameAvailable", MACHINES_API),
    ("addAllowedReplaySourceOrgs", REPLAYS),
    ("removeAllowedReplaySourceOrgs", REPLAYS),
    ("setAllowAllCrossNetworkReplays", REPLAYS),
    ("moveApp", MOVING),
    ("createOrganizationInvitation", MEMBERS),
    ("deleteOrganizationMembership", MEMBERS),
    ("latestImageTag", "Unknown repository"),
    ("createDoctorUrl", DOCTOR),
    ("createDoctorReport", DOCTOR),
];

/// Returns the first root field of a request that is not here, and why.
pub(crate) fn first(document: &ExecutableDocument) -> Option<(&str, &'static str)> {
    let operations = document.operations.iter();
    let fields = operations.flat_map(|(_, operation)| &operation.node.selection_set.node.items);
    let names = fields.filter_map(|item| match &item.node {
        Selection::Field(field) => Some(field.node.name.node.as_str()),
        Selection::FragmentSpread(_) | Selection::InlineFragment(_) => None,
    });
    names.into_iter().find_map(|name| {
        let known = ABSENT.iter().find(|(absent, _)| *absent == name);
        known.map(|(_, reason)| (name, *reason))
    })
}
