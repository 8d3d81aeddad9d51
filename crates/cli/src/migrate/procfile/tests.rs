use hangar_api::machine::Schedule;

use super::*;
use crate::migrate::testing::assert_valid;

const PROCFILE: &str = "
# comment
web: bundle exec puma -p $PORT
worker: bundle exec sidekiq
release: bin/rails db:migrate
Clock_2: clockwork clock.rb
nonsense
";

const APP_JSON: &str = r#"{
  "name": "My Shop",
  "description": "sells",
  "scripts": {"postdeploy": "bin/seed"},
  "env": {
    "RAILS_ENV": "production",
    "LIMIT": {"value": 5},
    "SECRET_KEY_BASE": {"generator": "secret"},
    "S3_BUCKET": {"description": "where"},
    "OPTIONAL": {"required": false}
  },
  "formation": {
    "web": {"quantity": 2, "size": "standard-2x"},
    "worker": {"quantity": 1, "size": "performance-l"},
    "gone": {"quantity": 1}
  },
  "addons": ["heroku-postgresql:mini", {"plan": "rediscloud"}],
  "buildpacks": [{"url": "heroku/ruby"}],
  "cron": [
    {"command": "bin/sweep", "schedule": "@daily"},
    {"command": "bin/poll", "schedule": "*/5 * * * *"}
  ],
  "healthchecks": {"web": [{"type": "startup", "path": "/up", "timeout": 3, "attempts": 2}]},
  "brand_new": true
}"#;

fn source() -> Source<'static> {
    Source {
        procfile: PROCFILE,
        app_json: Some(APP_JSON),
        name: "folder",
        exposed: None,
        builds: false,
    }
}

#[test]
fn processes_become_groups_and_the_formation_counts_and_sizes() {
    let converted = convert(&source()).unwrap();
    assert_valid(&converted);
    let app = &converted.apps[0];
    assert_eq!(
        app.draft.render(),
        r#"app = "my-shop"
kill_signal = "SIGTERM"
kill_timeout = "30s"

[deploy]
release_command = "bin/rails db:migrate"

[env]
LIMIT = "5"
PORT = "8080"
RAILS_ENV = "production"

[processes]
clock-2 = "clockwork clock.rb"
cron1 = "bin/sweep"
web = "sh -c 'exec bundle exec puma -p $PORT'"
worker = "bundle exec sidekiq"

[http_service]
internal_port = 8080
auto_start_machines = true
processes = ["web"]

[[http_service.checks]]
interval = "5s"
timeout = "3s"
path = "/up"

[[restart]]
policy = "on-failure"
processes = ["cron1"]

[[vm]]
size = "shared-cpu-1x"
memory = "1gb"
processes = ["web"]

[[vm]]
size = "performance-4x"
memory = "14gb"
processes = ["worker"]
"#
    );
    assert_eq!(app.scale_arguments().unwrap(), "cron1=1 web=2 worker=1");
    assert_eq!(app.schedules["cron1"], Schedule::Daily);
    assert_eq!(app.secrets, ["S3_BUCKET", "SECRET_KEY_BASE"]);
}

#[test]
fn what_is_not_carried_over_is_named() {
    let converted = convert(&source()).unwrap();
    let named: Vec<&str> = converted.notes.iter().map(|n| n.at.as_str()).collect();
    for at in [
        "Procfile line 7",
        "Procfile Clock_2",
        "Procfile web",
        "Procfile",
        "app.json scripts.postdeploy",
        "app.json env.OPTIONAL",
        "app.json env.SECRET_KEY_BASE",
        "app.json formation.gone",
        "app.json addons",
        "app.json buildpacks",
        "app.json cron[0]",
        "app.json cron[1]",
        "app.json healthchecks.web[0].attempts",
        "app.json brand_new",
    ] {
        assert!(named.contains(&at), "{at} in {named:#?}");
    }
}

#[test]
fn the_port_is_the_images_and_a_procfile_without_processes_is_refused() {
    let only_web = Source {
        procfile: "web: ./server",
        exposed: Some(3000),
        builds: true,
        app_json: None,
        ..source()
    };
    let converted = convert(&only_web).unwrap();
    assert_valid(&converted);
    let draft = &converted.apps[0].draft;
    assert_eq!(draft.http_service.as_ref().unwrap().internal_port, 3000);
    assert_eq!(draft.env["PORT"], "3000");
    assert!(converted.notes.is_empty(), "{:?}", converted.notes);
    let empty = Source {
        procfile: "# nothing\nrelease: true",
        ..only_web
    };
    assert!(convert(&empty).is_err());
    let broken = Source {
        app_json: Some("{"),
        ..only_web
    };
    assert!(convert(&broken).unwrap_err().0.contains("app.json"));
}

proptest::proptest! {
    #[test]
    fn whatever_a_procfile_says_the_file_is_valid(
        names in proptest::collection::vec("[a-zA-Z0-9_-]{1,8}", 1..5),
        commands in proptest::collection::vec("[ -~]{1,30}", 5),
        quantity in 0_u64..9,
    ) {
        let lines = names.iter().zip(&commands).map(|(n, c)| format!("{n}: {c}"));
        let text = lines.collect::<Vec<_>>().join("\n");
        let json = serde_json::json!({ "formation": { &names[0]: { "quantity": quantity } } });
        let json = json.to_string();
        let source = Source {
            procfile: &text,
            app_json: Some(&json),
            name: "x",
            exposed: None,
            builds: true,
        };
        if let Ok(converted) = convert(&source) {
            assert_valid(&converted);
        }
    }
}
