use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn masks() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::READ),
        Just(Action::ALL),
        Just(Action::NONE),
        Just(Action::EVERYTHING),
        (0_u16..32).prop_map(Action),
    ]
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![Just("a"), Just("b"), Just("")].prop_map(str::to_owned)
}

fn sets() -> impl Strategy<Value = Masks<String>> {
    proptest::collection::btree_map(names(), masks(), 0..3)
}

pub(crate) fn caveats() -> impl Strategy<Value = Caveat> {
    let command = proptest::collection::vec(names(), 0..3)
        .prop_flat_map(|args| any::<bool>().prop_map(move |exact| (args.clone(), exact)))
        .prop_map(|(args, exact)| AllowedCommand { args, exact });
    let simple = prop_oneof![
        (0_u64..3, masks()).prop_map(|(id, mask)| Caveat::Organization { id, mask }),
        proptest::collection::btree_map(0_u64..3, masks(), 0..3).prop_map(Caveat::Apps),
        sets().prop_map(Caveat::Volumes),
        sets().prop_map(Caveat::Machines),
        sets().prop_map(Caveat::Groups),
        sets().prop_map(Caveat::FeatureSet),
        sets().prop_map(Caveat::AppFeatureSet),
        sets().prop_map(Caveat::MachineFeatureSet),
        sets().prop_map(Caveat::Clusters),
        sets().prop_map(Caveat::StorageObjects),
        (0_i64..5, 0_i64..5).prop_map(|(not_before, not_after)| Caveat::ValidityWindow {
            not_before,
            not_after
        }),
        proptest::collection::vec(names(), 0..2).prop_map(Caveat::Mutations),
        (0_u64..9).prop_map(Caveat::IsUser),
        names().prop_map(Caveat::FromMachine),
        Just(Caveat::IsMember),
        any::<u32>().prop_map(Caveat::AllowedRoles),
        masks().prop_map(Caveat::Action),
        proptest::collection::vec(command, 0..3).prop_map(Caveat::Commands),
        (names(), names(), names()).prop_map(|(organization, app, instance)| Caveat::FlySrc {
            organization,
            app,
            instance
        }),
        (100_u64..200).prop_map(Caveat::Unknown),
    ];
    simple.prop_recursive(2, 8, 3, |inner| {
        (proptest::collection::vec(inner, 0..3), masks())
            .prop_map(|(ifs, otherwise)| Caveat::IfPresent { ifs, otherwise })
    })
}

prop_compose! {
    fn accesses()(
        action in masks(),
        ids in (proptest::option::of(0_u64..3), proptest::option::of(0_u64..3)),
        texts in proptest::collection::vec(proptest::option::of(names()), 10),
        command in proptest::option::of(proptest::collection::vec(names(), 0..3)),
    ) -> Access {
        let mut texts = texts.into_iter().map(|text| text.filter(|text| !text.is_empty()));
        let mut text = || texts.next().flatten();
        Access {
            action,
            org: ids.0,
            app: ids.1,
            app_feature: text(),
            feature: text(),
            volume: text(),
            machine: text(),
            machine_feature: text(),
            group: text(),
            command,
            mutation: text(),
            source_machine: text(),
            source_app: text(),
            source_org: text(),
        }
    }
}

proptest! {
    #[test]
    fn one_more_caveat_never_permits_more(
        mut list in proptest::collection::vec(caveats(), 0..4),
        more in caveats(),
        place in 0_usize..5,
        access in accesses(),
        now in 0_i64..6,
    ) {
        let before = permits(&list, &access, at(now)).is_ok();
        list.insert(place.min(list.len()), more);
        let after = permits(&list, &access, at(now)).is_ok();
        prop_assert!(before || !after, "{list:?} {access:?}");
    }

    #[test]
    fn an_action_less_never_needs_more(
        list in proptest::collection::vec(caveats(), 0..4),
        access in accesses(),
        fewer in masks(),
        now in 0_i64..6,
    ) {
        let smaller = Access { action: Action(access.action.0 & fewer.0), ..access.clone() };
        if permits(&list, &access, at(now)).is_ok() {
            prop_assert!(permits(&list, &smaller, at(now)).is_ok(), "{list:?} {smaller:?}");
        }
    }

    #[test]
    fn what_is_not_known_permits_nothing(
        mut list in proptest::collection::vec(caveats(), 0..4),
        access in accesses(),
        kind in 32_u64..,
        nested in any::<bool>(),
    ) {
        prop_assume!(kind != wire::GROUPS);
        let unknown = Caveat::Unknown(kind);
        list.push(match nested {
            true => Caveat::IfPresent { ifs: vec![unknown], otherwise: Action::EVERYTHING },
            false => unknown,
        });
        prop_assert!(permits(&list, &access, at(2)).is_err());
    }

    #[test]
    fn a_caveat_comes_back_from_json(caveat in caveats()) {
        let text = serde_json::to_string(&caveat).unwrap();
        let back: Caveat = serde_json::from_str(&text).unwrap();
        // Bits that have no letter are not written.
        let again = serde_json::to_string(&back).unwrap();
        prop_assert_eq!(text, again);
    }
}

fn only(id: &str, mask: Action) -> Masks<String> {
    BTreeMap::from([(id.to_owned(), mask)])
}

#[test]
fn a_deploy_token_manages_its_app_reads_the_organisation_and_no_other_app() {
    let list = [
        Caveat::Organization {
            id: 7,
            mask: Action::EVERYTHING,
        },
        Caveat::IfPresent {
            ifs: vec![
                Caveat::Apps(BTreeMap::from([(3, Action::EVERYTHING)])),
                Caveat::FeatureSet(only("builder", Action::ALL)),
            ],
            otherwise: Action::READ,
        },
    ];
    let may = |access: &Access| permits(&list, access, at(0)).is_ok();
    let org = Access {
        action: Action::READ,
        org: Some(7),
        ..Access::default()
    };
    let app = Access {
        action: Action::ALL,
        app: Some(3),
        ..org.clone()
    };
    assert!(may(&org) && may(&app));
    for refused in [
        Access {
            action: Action::WRITE,
            ..org.clone()
        },
        Access {
            org: Some(8),
            ..org.clone()
        },
        Access {
            org: None,
            ..org.clone()
        },
        Access {
            app: Some(4),
            ..org.clone()
        },
        Access {
            feature: Some(FEATURE_TOKENS.to_owned()),
            ..org.clone()
        },
    ] {
        assert!(!may(&refused), "{refused:?}");
    }
}

#[test]
fn a_token_for_commands_reads_and_runs_these_and_does_nothing_else() {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let list = [Caveat::IfPresent {
        ifs: vec![Caveat::Commands(vec![
            AllowedCommand {
                args: words("bin/task one"),
                exact: true,
            },
            AllowedCommand {
                args: words("ls"),
                exact: false,
            },
        ])],
        otherwise: Action::READ,
    }];
    let may = |action, command: Option<&str>| {
        let access = Access {
            action,
            machine: Some("m".to_owned()),
            command: command.map(words),
            ..Access::default()
        };
        permits(&list, &access, at(0)).is_ok()
    };
    assert!(may(Action::WRITE, Some("bin/task one")));
    assert!(may(Action::WRITE, Some("ls -l /")));
    assert!(may(Action::READ, None));
    for refused in ["bin/task one two", "bin/task", "sh", "lsof"] {
        assert!(!may(Action::WRITE, Some(refused)), "{refused}");
    }
    assert!(!may(Action::WRITE, None) && !may(Action::CONTROL, None));
}

#[test]
fn a_window_holds_its_first_and_its_last_second() {
    let window = Caveat::ValidityWindow {
        not_before: 10,
        not_after: 20,
    };
    let good = |second| window.permits(&Access::default(), at(second)).is_ok();
    assert_eq!([9, 10, 20, 21].map(good), [false, true, true, false]);
}

#[test]
fn members_do_what_is_not_an_administrators() {
    let may = |action, feature: Option<&str>| {
        let access = Access {
            action,
            feature: feature.map(str::to_owned),
            ..Access::default()
        };
        Caveat::IsMember.permits(&access, at(0)).is_ok()
    };
    assert!(may(Action::ALL, None) && may(Action::ALL, Some("wg")));
    assert!(may(Action::READ, Some(FEATURE_TOKENS)));
    assert!(!may(Action::CREATE, Some(FEATURE_TOKENS)));
    assert!(!may(Action::READ, Some(FEATURE_DELETION)) && !may(Action::READ, Some("new")));
}

#[test]
fn the_json_of_fly_is_read_and_what_is_no_caveat_is_named() {
    let text = r#"[{"type":"DeprecatedOrganization","body":{"id":4,"mask":"*"}},
        {"type":"IfPresent","body":{"ifs":[{"type":"Apps","body":{"apps":{"12":"rw"}}},
        {"type":"Commands","body":[{"args":["ls"],"exact":true}]}],"else":"r"}},
        {"type":"Action","body":"rC"}]"#;
    let read = caveats_from_json(text).unwrap();
    assert_eq!(read.len(), 3);
    assert_eq!(
        read[0],
        Caveat::Organization {
            id: 4,
            mask: Action::EVERYTHING
        }
    );
    let one = caveats_from_json(r#"{"type":"IsMember","body":{}}"#).unwrap();
    assert_eq!(one, [Caveat::IsMember]);
    for (text, named) in [
        ("[{\"type\":\"Nonsense\",\"body\":{}}]", "Nonsense"),
        (
            "[{\"type\":\"Apps\",\"body\":{\"apps\":{\"x\":\"r\"}}}]",
            "Apps",
        ),
        ("{", "EOF"),
    ] {
        let error = caveats_from_json(text).unwrap_err();
        assert!(error.contains(named), "{error}");
    }
}
