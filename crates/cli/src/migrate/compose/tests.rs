use super::*;
use crate::migrate::testing::assert_valid;

const FILE: &str = r#"
name: Shop
x-env: &env
  DATABASE_URL: postgres://shop:${DB_PASSWORD}@db:5432/shop
  REDIS_URL: redis://cache:6379
  LOG: ${LOG:-info}
services:
  web:
    build: {context: ., dockerfile: docker/Dockerfile, args: {MODE: prod}}
    command: ["serve", "--name", "a b"]
    environment: *env
    env_file: [.env.web, {path: missing.env, required: false}]
    ports: ["8080:3000", "127.0.0.1:9229:9229", "53:53/udp"]
    depends_on: {db: {condition: service_healthy}}
    deploy:
      replicas: 3
      resources: {limits: {cpus: "0.5", memory: 400M}}
      update_config: {parallelism: 2, order: start-first}
    healthcheck:
      test: ["CMD", "curl", "-f", "http://localhost:3000/health"]
      interval: 10s
      retries: 3
    stop_grace_period: 1m
  worker:
    build: {context: ., dockerfile: docker/Dockerfile, args: {MODE: prod}}
    command: work 'on it'
    environment: *env
    restart: unless-stopped
    stop_grace_period: 1m
    networks: [back]
    volumes: ["./src:/app", "cache:/cache"]
  db:
    image: postgres:16
    environment: ["POSTGRES_PASSWORD=hunter2", "POSTGRES_DB=shop"]
    volumes: ["pgdata:/var/lib/postgresql/data", "more:/more"]
    healthcheck: {test: "pg_isready -U postgres", timeout: 100s}
    privileged: true
  cache:
    image: redis:7
    entrypoint: redis-server --save ''
    ports: ["6379:6379"]
volumes: {pgdata: {}, cache: {external: true}, more: {}}
networks: {back: {}}
"#;

fn converted() -> Converted {
    let files = BTreeMap::from([(
        ".env.web".to_owned(),
        "EXTRA=1\nAPI_TOKEN=x\nHOSTED".to_owned(),
    )]);
    let source = Source {
        name: "folder",
        rename: None,
        text: FILE,
        variables: &BTreeMap::new(),
        files: &files,
    };
    convert(&source).unwrap()
}

#[test]
fn services_of_one_image_are_groups_and_others_are_apps() {
    let converted = converted();
    assert_valid(&converted);
    let names: Vec<&str> = converted
        .apps
        .iter()
        .map(|a| a.draft.app.as_str())
        .collect();
    assert_eq!(names, ["shop-cache", "shop-db", "shop"]);
    assert_eq!(
        converted.file_names(),
        ["fly.shop-cache.toml", "fly.shop-db.toml", "fly.toml"]
    );
    let main = &converted.apps[2];
    assert_eq!(
        main.draft.render(),
        r#"app = "shop"
kill_signal = "SIGTERM"
kill_timeout = "60s"

[build]
dockerfile = "docker/Dockerfile"

[build.args]
MODE = "prod"

[deploy]
max_unavailable = 2.0

[env]
EXTRA = "1"
LOG = "info"
REDIS_URL = "redis://shop-cache.internal:6379"

[processes]
web = "serve --name 'a b'"
worker = "work 'on it'"

[[mounts]]
source = "cache"
destination = "/cache"
processes = ["worker"]

[http_service]
internal_port = 3000
auto_start_machines = true
processes = ["web"]

[[http_service.checks]]
interval = "10s"
timeout = "30s"
path = "/health"

[[restart]]
policy = "always"
processes = ["worker"]

[[vm]]
size = "shared-cpu-1x"
memory = "512mb"
processes = ["web"]
"#
    );
    assert_eq!(main.counts, BTreeMap::from([("web".to_owned(), 3)]));
    assert_eq!(main.secrets, ["API_TOKEN", "HOSTED", "DATABASE_URL"]);
}

#[test]
fn a_database_keeps_its_volume_its_check_and_its_command() {
    let converted = converted();
    assert_eq!(
        converted.apps[1].draft.render(),
        r#"app = "shop-db"
kill_timeout = "10s"

[build]
image = "postgres:16"

[env]
POSTGRES_DB = "shop"
# Looks like a secret: take it out here, and set it by `hangar secrets set`.
POSTGRES_PASSWORD = "hunter2"

[[mounts]]
source = "pgdata"
destination = "/var/lib/postgresql/data"

[checks.db]
type = "tcp"
port = 5432
interval = "30s"
timeout = "60s"
"#
    );
    let cache = &converted.apps[0].draft;
    assert_eq!(
        cache.experimental.as_ref().unwrap().entrypoint,
        ["redis-server"]
    );
    assert_eq!(cache.processes["cache"], "--save ''");
    assert_eq!(cache.services[0].ports[0].port, 6379);
    assert!(cache.services[0].ports[0].handlers.is_empty());
}

#[test]
fn what_has_no_counterpart_is_named() {
    let converted = converted();
    let named: Vec<&str> = converted.notes.iter().map(|n| n.at.as_str()).collect();
    for at in [
        "services.web.ports[1]",
        "services.web.ports[2]",
        "services.web.ports",
        "services.web.depends_on",
        "services.web.environment.DATABASE_URL",
        "services.web.env_file .env.web API_TOKEN",
        "services.web.deploy.update_config.order",
        "services.web.healthcheck.retries",
        "services.worker.networks",
        "services.worker.volumes[0]",
        "services.db.environment.POSTGRES_PASSWORD",
        "services.db.volumes[1]",
        "services.db.healthcheck",
        "services.db.privileged",
        "shop env REDIS_URL",
        "volumes.cache",
    ] {
        assert!(named.contains(&at), "{at} in {named:#?}");
    }
    // Nothing is said of what is carried over.
    assert!(
        !named.iter().any(|at| at.contains("missing.env")),
        "{named:#?}"
    );
}

fn of(text: &str) -> Result<Converted, Unreadable> {
    convert(&Source {
        name: "x",
        rename: None,
        text,
        variables: &BTreeMap::new(),
        files: &BTreeMap::new(),
    })
}

#[test]
fn one_image_with_two_values_of_a_variable_makes_two_apps() {
    let converted = of("services:\n  a: {image: x, environment: {K: 1}}\n  b: {image: x, environment: {K: 2}}\n  c: {image: x}\n").unwrap();
    assert_valid(&converted);
    assert_eq!(converted.apps.len(), 2);
    let note = converted
        .notes
        .iter()
        .find(|n| n.at == "services.b")
        .unwrap();
    assert!(note.text.contains("value of K"), "{note}");
    let folders = of("services:\n  a: {build: ./api}\n  b: {build: web}\n").unwrap();
    assert_eq!(folders.file_names(), ["web/fly.toml", "api/fly.toml"]);
}

#[test]
fn a_file_that_is_no_compose_file_is_refused() {
    assert!(of("a: 1").unwrap_err().0.contains("no services"));
    assert!(of("services: [").unwrap_err().0.contains("line"));
    assert_eq!(
        env_files("services: {a: {env_file: x}, b: {env_file: [{path: y}]}}").unwrap(),
        ["x", "y"]
    );
}

proptest::proptest! {
    #[test]
    fn whatever_services_say_the_files_are_valid(
        images in proptest::collection::vec("[ab]", 1..5),
        commands in proptest::collection::vec(proptest::option::of("[a-z $'\"]{0,12}"), 5),
        ports in proptest::collection::vec(1_u16.., 5),
        memory in 1_u64..20_000,
    ) {
        let mut services = serde_json::Map::new();
        for (index, image) in images.iter().enumerate() {
            let mut service = serde_json::json!({
                "image": image,
                "ports": [format!("{}:{}", ports[index], ports[4 - index])],
                "deploy": { "resources": { "limits": { "memory": format!("{memory}M") } } },
                "healthcheck": { "test": format!("curl http://localhost:{}/x", ports[index]) },
            });
            if let Some(command) = &commands[index] {
                service["command"] = command.clone().into();
            }
            services.insert(format!("s{index}"), service);
        }
        // JSON is YAML.
        let text = serde_json::json!({ "services": services }).to_string();
        assert_valid(&of(&text).unwrap());
    }
}

fn change(value: &mut Value, left: &mut usize, what: u8) {
    if *left == 0 {
        *value = match what {
            0 => Value::Null,
            1 => Value::String("x".to_owned()),
            2 => Value::from(-1),
            3 => serde_json::json!([[]]),
            _ => serde_json::json!({"a": {}}),
        };
    }
    *left = left.wrapping_sub(1);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| change(item, left, what)),
        Value::Object(map) => map.values_mut().for_each(|item| change(item, left, what)),
        _ => {}
    }
}

proptest::proptest! {
    /// Takes one value of the file out, or makes it something else: it is still read or refused.
    #[test]
    fn no_file_is_too_strange(index in 0_usize..120, what in 0_u8..5) {
        let mut tree = yaml::parse(FILE).unwrap();
        let mut left = index;
        change(&mut tree, &mut left, what);
        if let Ok(converted) = of(&tree.to_string()) {
            assert_valid(&converted);
        }
    }
}
