//! A configuration comes back as it was sent, but for its size, its volume and `autostop`
//! (machines-api.md 4).

use hangar_api::machine::MachineConfig;
use hyper::{Method, StatusCode};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use crate::cluster::Cluster;

/// Any of these keys, each with a value of its own, or left out.
fn some_of(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let each = fields.into_iter().map(|(key, value)| {
        proptest::option::weighted(0.4, value).prop_map(move |value| (key, value))
    });
    let object = |pairs: Vec<(&'static str, Option<Value>)>| {
        let given = pairs
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Value::Object(given.collect())
    };
    each.collect::<Vec<_>>().prop_map(object).boxed()
}

fn with(base: Value, rest: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    rest.prop_map(move |rest| {
        let mut all = base.clone();
        let (Some(into), Value::Object(from)) = (all.as_object_mut(), rest) else {
            unreachable!("both are objects")
        };
        into.extend(from);
        all
    })
    .boxed()
}

fn text() -> BoxedStrategy<Value> {
    "[a-z]{1,6}".prop_map(Value::from).boxed()
}

fn flag() -> BoxedStrategy<Value> {
    any::<bool>().prop_map(Value::from).boxed()
}

fn number(range: std::ops::Range<u16>) -> BoxedStrategy<Value> {
    range.prop_map(Value::from).boxed()
}

fn list(of: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    proptest::collection::vec(of, 0..3)
        .prop_map(Value::from)
        .boxed()
}

fn map(of: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    let pairs = proptest::collection::btree_map("[A-Z]{1,4}", of, 0..3);
    pairs
        .prop_map(|pairs| Value::Object(pairs.into_iter().collect()))
        .boxed()
}

fn duration() -> BoxedStrategy<Value> {
    let nanos = (1_u64..60).prop_map(|seconds| Value::from(seconds * 1_000_000_000));
    prop_oneof![
        select(vec![
            json!("15s"),
            json!("1m30s"),
            json!("90s"),
            json!("500ms")
        ]),
        nanos
    ]
    .boxed()
}

/// What no version of Hangar has ever heard of, and nothing at all.
fn odd() -> BoxedStrategy<Value> {
    select(vec![
        json!({"deep": [1, null, {"a": 2.5}]}),
        json!(null),
        json!([]),
        json!(-1),
    ])
    .boxed()
}

fn check() -> BoxedStrategy<Value> {
    let header = with(
        json!({"name": "X-A"}),
        some_of(vec![("values", list(text())), ("odd", odd())]),
    );
    some_of(vec![
        ("type", select(vec![json!("tcp"), json!("http")]).boxed()),
        ("port", number(1..9000)),
        ("interval", duration()),
        ("timeout", duration()),
        ("grace_period", duration()),
        ("method", text()),
        ("path", text()),
        (
            "protocol",
            select(vec![json!("http"), json!("https"), json!(null)]).boxed(),
        ),
        ("tls_skip_verify", flag()),
        ("tls_server_name", text()),
        ("headers", list(header)),
        (
            "kind",
            select(vec![json!("informational"), json!("readiness")]).boxed(),
        ),
        ("odd", odd()),
    ])
}

fn port() -> BoxedStrategy<Value> {
    let handlers = select(vec![json!([]), json!(["http"]), json!(["tls", "http"])]);
    let response = some_of(vec![
        ("pristine", flag()),
        ("headers", map(text())),
        ("odd", odd()),
    ]);
    let http = some_of(vec![
        ("compress", flag()),
        ("h2_backend", flag()),
        ("idle_timeout", number(0..60)),
        ("response", response),
        ("odd", odd()),
    ]);
    let tls = some_of(vec![
        ("alpn", list(text())),
        ("versions", Just(json!(["TLSv1.3"])).boxed()),
    ]);
    some_of(vec![
        ("port", number(1..9000)),
        ("handlers", handlers.boxed()),
        ("force_https", Just(json!(false)).boxed()),
        ("http_options", http),
        ("tls_options", tls),
        (
            "proxy_proto_options",
            some_of(vec![("version", Just(json!("v2")).boxed())]),
        ),
        ("odd", odd()),
    ])
}

fn service() -> BoxedStrategy<Value> {
    let concurrency = some_of(vec![
        (
            "type",
            select(vec![json!("requests"), json!("connections")]).boxed(),
        ),
        ("soft_limit", number(1..50)),
        ("hard_limit", number(50..99)),
        ("odd", odd()),
    ]);
    let autostop = select(vec![
        json!(true),
        json!(false),
        json!("suspend"),
        json!(null),
    ]);
    let rest = some_of(vec![
        ("protocol", Just(json!("tcp")).boxed()),
        ("ports", list(port())),
        ("concurrency", concurrency),
        ("autostop", autostop.boxed()),
        ("autostart", flag()),
        ("min_machines_running", number(0..3)),
        ("checks", list(check())),
        ("force_instance_key", Just(json!(null)).boxed()),
        ("force_instance_description", text()),
        ("odd", odd()),
    ]);
    with(json!({"internal_port": 80}), rest)
}

fn program() -> Vec<(&'static str, BoxedStrategy<Value>)> {
    let init = some_of(vec![
        ("exec", list(text())),
        ("entrypoint", list(text())),
        ("cmd", list(text())),
        ("tty", flag()),
        ("swap_size_mb", number(0..100)),
        ("kernel_args", list(text())),
        ("odd", odd()),
    ]);
    let dns = some_of(vec![
        ("skip_registration", flag()),
        ("nameservers", list(text())),
        (
            "options",
            list(Just(json!({"name": "a", "value": "b"})).boxed()),
        ),
        ("odd", odd()),
    ]);
    let stop = some_of(vec![
        (
            "signal",
            select(vec![json!("SIGTERM"), json!(null)]).boxed(),
        ),
        ("timeout", duration()),
        ("odd", odd()),
    ]);
    let restart = some_of(vec![
        (
            "policy",
            select(vec![json!("no"), json!("on-failure"), json!("always")]).boxed(),
        ),
        ("max_retries", number(0..9)),
        ("odd", odd()),
    ]);
    let file = with(
        json!({"guest_path": "/etc/x"}),
        some_of(vec![
            ("raw_value", Just(json!("aGVsbG8=")).boxed()),
            ("mode", Just(json!(420)).boxed()),
            ("odd", odd()),
        ]),
    );
    vec![
        ("init", init),
        ("dns", dns),
        ("stop_config", stop),
        ("restart", restart),
        ("files", list(file)),
        ("env", map(text())),
        ("metadata", map(text())),
    ]
}

/// Any configuration of the schema that this Hangar runs.
fn any_config() -> BoxedStrategy<Value> {
    let guest = with(
        json!({"cpu_kind": "shared", "cpus": 1, "memory_mb": 512}),
        some_of(vec![
            ("max_memory_mb", number(512..1024)),
            ("kernel_args", list(text())),
            (
                "odd",
                select(vec![json!({"deep": [null]}), json!([])]).boxed(),
            ),
        ]),
    );
    let folder = json!({"guest_path": "/a", "url_prefix": "/b", "index_document": "i"});
    let statics = select(vec![json!([]), json!([folder])]);
    let mut fields = program();
    fields.extend([
        ("guest", guest),
        ("services", list(service())),
        ("checks", map(check())),
        ("auto_destroy", flag()),
        (
            "schedule",
            select(vec![json!("daily"), json!(null)]).boxed(),
        ),
        (
            "metrics",
            some_of(vec![
                ("port", number(1..9000)),
                ("path", text()),
                ("https", flag()),
            ]),
        ),
        ("statics", statics.boxed()),
        (
            "rootfs",
            some_of(vec![
                ("persist", Just(json!("restart")).boxed()),
                ("size_gb", number(0..9)),
            ]),
        ),
        ("disable_machine_autostart", flag()),
        ("odd", odd()),
    ]);
    with(json!({"image": "nginx"}), some_of(fields))
}

/// Returns what is to come back: the same, with a size.
fn expected(sent: &Value) -> Value {
    let mut shown = sent.clone();
    let guest = json!({"cpu_kind": "shared", "cpus": 1, "memory_mb": 256});
    let fields: &mut Map<_, _> = shown.as_object_mut().unwrap();
    fields.entry("guest").or_insert(guest);
    shown
}

proptest! {
    #[test]
    fn any_configuration_is_written_as_it_was_read(sent in any_config()) {
        let read: MachineConfig = serde_json::from_value(sent.clone()).unwrap();
        let written = serde_json::to_value(&read).unwrap();
        prop_assert_eq!(&written, &sent);
        // And through text, as the store and the link to the host have it.
        let text = serde_json::to_string(&read).unwrap();
        let again: MachineConfig = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&again, &read);
        prop_assert_eq!(serde_json::to_value(&again).unwrap(), sent);
    }
}

#[test]
fn any_configuration_comes_back_from_the_api_as_it_was_sent() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = runtime.block_on(async {
        let cluster = Cluster::start().await;
        cluster.app("echo").await;
        cluster
    });
    let config = ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let tried = runner.run(&(any_config(), any_config()), |(first, second)| {
        runtime.block_on(async {
            let base = "/v1/apps/echo/machines";
            let body = json!({"config": first, "skip_launch": true});
            let (status, made) = cluster.call(Method::POST, base, body).await;
            prop_assert_eq!(status, StatusCode::OK, "{}", made);
            prop_assert_eq!(&made["config"], &expected(&first));
            let path = format!("{base}/{}", made["id"].as_str().unwrap());
            let body = json!({"config": second, "skip_launch": true});
            let (status, updated) = cluster.call(Method::POST, &path, body).await;
            prop_assert_eq!(status, StatusCode::OK, "{}", updated);
            prop_assert_eq!(&updated["config"], &expected(&second));
            let shown = cluster.get(&path).await;
            prop_assert_eq!(&shown["config"], &expected(&second));
            let versions = cluster.get(&format!("{path}/versions")).await;
            prop_assert_eq!(&versions[1]["user_config"], &expected(&first));
            cluster
                .call(Method::DELETE, &format!("{path}?force=true"), Value::Null)
                .await;
            Ok(())
        })
    });
    tried.unwrap();
}

#[tokio::test]
async fn only_size_volume_and_autostop_come_back_in_another_form() {
    let mut cluster = Cluster::start().await;
    cluster.app("forms").await;
    let base = "/v1/apps/forms/machines";
    let volume = json!({"name": "data", "region": "iad", "size_gb": 2});
    let volume = cluster.post("/v1/apps/forms/volumes", volume).await;
    let id = volume["id"].as_str().unwrap();
    let config = json!({
        "image": "x", "size": "shared-cpu-2x", "services": null, "guest": null,
        "checks": {"up": {"type": "tcp", "port": 80, "interval": 15_000_000_000_u64}},
        "mounts": [{"volume": id, "path": "/data", "encrypted": true, "odd": null}],
    });
    let made = cluster.post(base, json!({"config": config})).await;
    let mut wanted = json!({
        "image": "x", "size": "shared-cpu-2x",
        "guest": {"cpu_kind": "shared", "cpus": 2, "memory_mb": 512},
        "checks": {"up": {"type": "tcp", "port": 80, "interval": 15_000_000_000_u64}},
        "mounts": [{
            "volume": id, "path": "/data", "odd": null,
            "name": "data", "size_gb": 2, "encrypted": false,
        }],
    });
    assert_eq!(made["config"], wanted);
    let path = format!("{base}/{}", made["id"].as_str().unwrap());
    let (status, _) = cluster
        .call(
            Method::PUT,
            &format!("/v1/apps/forms/volumes/{id}/extend"),
            json!({"size_gb": 5}),
        )
        .await;
    assert_eq!(status, StatusCode::OK);
    wanted["mounts"][0]["size_gb"] = json!(5);
    let shown = cluster
        .until(&path, |machine| {
            machine["config"]["mounts"][0]["size_gb"] == 5
        })
        .await;
    assert_eq!(shown["config"], wanted);

    // Metadata is changed in its place, and a cordon changes nothing.
    cluster
        .post(&format!("{path}/metadata/k"), json!({"value": "v"}))
        .await;
    cluster.post(&format!("{path}/cordon"), Value::Null).await;
    wanted["metadata"] = json!({"k": "v"});
    assert_eq!(cluster.get(&path).await["config"], wanted);
    cluster.down().await;
    cluster.up().await;
    assert_eq!(cluster.get(&path).await["config"], wanted);

    for (sent, shown) in [
        (json!("stop"), json!(true)),
        (json!("off"), json!(false)),
        (json!("suspend"), json!("suspend")),
        (json!(true), json!(true)),
        (json!(null), json!(null)),
    ] {
        let service = json!({"internal_port": 80, "protocol": "tcp", "autostop": sent});
        let config = json!({"image": "x", "services": [service]});
        let made = cluster.post(base, json!({"config": config})).await;
        assert_eq!(made["config"]["services"][0]["autostop"], shown, "{sent}");
        assert_eq!(made["config"]["services"][0].as_object().unwrap().len(), 3);
    }
}
