//! Lists, in the shape of Fly's connections.

use async_graphql::{OutputType, SimpleObject};

use crate::app::App;
use crate::app::{EgressIpAddress, IpAddress, Issue};
use crate::machine::{Machine, MachineIp, VolumeSnapshot};
use crate::org::{AddOn, LimitedAccessToken, Organization, WireGuardPeer};
use crate::release::{Release, ReleaseUnprocessed};

/// A page of a list.
#[derive(Clone, Debug, SimpleObject)]
#[graphql(concrete(name = "AddOnConnection", params(AddOn)))]
#[graphql(concrete(name = "AppConnection", params(App)))]
#[graphql(concrete(name = "EgressIPAddressConnection", params(EgressIpAddress)))]
#[graphql(concrete(name = "IPAddressConnection", params(IpAddress)))]
#[graphql(concrete(name = "IssueConnection", params(Issue)))]
#[graphql(concrete(name = "LimitedAccessTokenConnection", params(LimitedAccessToken)))]
#[graphql(concrete(name = "MachineConnection", params(Machine)))]
#[graphql(concrete(name = "MachineIPConnection", params(MachineIp)))]
#[graphql(concrete(name = "OrganizationConnection", params(Organization)))]
#[graphql(concrete(name = "ReleaseConnection", params(Release)))]
#[graphql(concrete(name = "ReleaseUnprocessedConnection", params(ReleaseUnprocessed)))]
#[graphql(concrete(name = "VolumeSnapshotConnection", params(VolumeSnapshot)))]
#[graphql(concrete(name = "WireGuardPeerConnection", params(WireGuardPeer)))]
pub(crate) struct Connection<T: OutputType> {
    /// What is on the page.
    pub(crate) nodes: Vec<T>,
    /// Whether there is more.
    pub(crate) page_info: PageInfo,
}

/// Whether there is more, and how to ask for it.
#[derive(Clone, Debug, Default, SimpleObject)]
pub(crate) struct PageInfo {
    /// Whether more comes after this page.
    pub(crate) has_next_page: bool,
    /// What the next page comes after.
    pub(crate) end_cursor: Option<String>,
}

impl<T: OutputType> Connection<T> {
    /// Returns a list that is whole.
    pub(crate) fn whole(nodes: impl IntoIterator<Item = T>) -> Self {
        Self {
            nodes: nodes.into_iter().collect(),
            page_info: PageInfo::default(),
        }
    }
}
