//! The GraphQL endpoint as clients use it: what it understands, what it refuses, and for whom.

use serde_json::{Value, json};

use crate::world::{API, Answer, World, request};

impl World {
    /// Asks as the bearer of a token; the answer is always a 200.
    fn graphql(&self, token: &str, body: &Value) -> Value {
        let answer = self.graphql_raw(&format!("Bearer {token}"), &body.to_string());
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }

    fn graphql_raw(&self, authorization: &str, body: &str) -> Answer {
        let head = format!("authorization: {authorization}\r\ncontent-type: application/json\r\n");
        self.inside(|| request(API, "POST", "/graphql", "localhost", &head, body.as_bytes()))
            .unwrap()
    }

    /// Asks, expects no error, and returns the data.
    fn asked(&self, token: &str, query: &str, variables: Value) -> Value {
        let answer = self.graphql(token, &json!({"query": query, "variables": variables}));
        assert!(answer["errors"].is_null(), "{query}: {answer}");
        answer["data"].clone()
    }

    /// Asks, expects a refusal, and returns its first text.
    fn refused(&self, token: &str, query: &str, variables: Value) -> String {
        let answer = self.graphql(token, &json!({"query": query, "variables": variables}));
        let text = answer["errors"][0]["message"].as_str();
        text.unwrap_or_else(|| panic!("{query}: {answer}"))
            .to_owned()
    }

    /// Makes a token of an app and returns its text.
    fn app_token(&self, app: &str) -> String {
        let make = "mutation($app: JSON) { createLimitedAccessToken(input: {name: \"t\", \
             organizationId: \"personal\", profile: \"deploy\", profileParams: $app}) \
             { limitedAccessToken { tokenHeader } } }";
        let made = self.asked(&self.token(), make, json!({"app": {"app_id": app}}));
        let header = &made["createLimitedAccessToken"]["limitedAccessToken"]["tokenHeader"];
        let header = header.as_str().unwrap();
        header.strip_prefix("FlyV1 ").unwrap().to_owned()
    }
}

#[test]
fn queries_of_every_form_are_understood() {
    let Some(world) = World::start() else { return };
    let token = world.token();
    world.ok(&["apps", "create", "one"]);
    // Aliases, fragments, inline fragments, variables with and without a use.
    let query = "query Both($name: String!) { first: app(name: $name) { ...Some } \
         second: app(name: $name) { ... on App { id network } } } \
         fragment Some on App { name organization { slug type } }";
    let answer = world.graphql(
        &token,
        &json!({
            "query": query, "operationName": "Both",
            "variables": {"name": "one", "status": "complete"},
        }),
    );
    assert_eq!(
        answer["data"],
        json!({
            "first": {"name": "one", "organization": {"slug": "personal", "type": "PERSONAL"}},
            "second": {"id": "one", "network": ""},
        })
    );
    let answer = world.graphql(
        &token,
        &json!({"query": "{viewer{email}}", "variables": null}),
    );
    assert_eq!(answer["data"]["viewer"]["email"], "admin@localhost");
    // It tells what there is, and what it tells is what it answers.
    let schema = world.asked(
        &token,
        "{ __schema { queryType { name fields { name } } types { name } } }",
        json!({}),
    );
    assert_eq!(schema["__schema"]["queryType"]["name"], "Queries");
    let fields = schema["__schema"]["queryType"]["fields"]
        .as_array()
        .unwrap();
    assert!(fields.iter().any(|field| field["name"] == "app"));
}

#[test]
fn what_cannot_be_answered_is_an_error_in_a_200_and_never_null() {
    let Some(world) = World::start() else { return };
    let token = world.token();
    let app = "query($name: String!) { app(name: $name) { id } }";
    let text = world.refused(&token, app, json!({"name": "none"}));
    assert_eq!(text, "Could not find App \"none\"");
    let text = world.refused(&token, app, json!({"name": "../x"}));
    assert!(text.contains("Could not find App"), "{text}");
    let latest = "query($image: String!) { latestImageDetails(image: $image) { tag } }";
    let text = world.refused(&token, latest, json!({"image": "nginx"}));
    assert_eq!(text, "Unknown repository");
    let peers = "mutation($input: ValidateWireGuardPeersInput!) \
         { validateWireGuardPeers(input: $input) { invalidPeerIps } }";
    let text = world.refused(&token, peers, json!({"input": {"peerIps": []}}));
    assert!(text.contains("hangar ssh console"), "{text}");
    let text = world.refused(&token, "{ nothing }", json!({}));
    assert!(text.contains("nothing"), "{text}");
    let text = world.refused(&token, "{ app(", json!({}));
    assert!(!text.is_empty());
    let deep = format!(
        "{{ app(name: \"x\") {}",
        "{ machines { nodes { app ".repeat(8)
    ) + "{ id }"
        + &" }}}".repeat(8)
        + " }";
    let text = world.refused(&token, &deep, json!({}));
    assert!(text.contains("deep"), "{text}");
    for bad in ["", "null", "[]", "{\"query\": 1}"] {
        let answer = world.graphql_raw(&format!("Bearer {token}"), bad);
        assert_eq!(answer.status, 200, "{bad}");
        assert!(
            answer.body.contains("not a GraphQL request"),
            "{}",
            answer.body
        );
    }
}

#[test]
fn nobody_sees_or_does_more_than_the_token_permits() {
    let Some(world) = World::start() else { return };
    for app in ["mine", "theirs"] {
        world.ok(&["apps", "create", app]);
        world.ok(&["volumes", "create", "data", "-a", app, "-s", "1", "--yes"]);
        world.ok(&["machine", "run", "testapp", "-a", app]);
    }
    let token = world.app_token("mine");
    let machine = world.machines("theirs")[0]["id"].clone();
    let volumes = world.json(&["volumes", "list", "-a", "theirs"]);
    let volume = volumes[0]["id"].clone();

    let apps = "{ apps { nodes { name machines { nodes { id } } } } }";
    let seen = world.asked(&token, apps, json!({}));
    let seen = seen["apps"]["nodes"].as_array().unwrap().clone();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0]["name"], "mine");
    let app = "query($n: String) { app(name: $n) { name secrets { name } } }";
    assert_eq!(
        world.asked(&token, app, json!({"n": "mine"}))["app"]["name"],
        "mine"
    );
    for (query, variables) in [
        (app, json!({"n": "theirs"})),
        (
            "query($n: String!) { canPerformBluegreenDeployment(name: $n) }",
            json!({"n": "theirs"}),
        ),
        (
            "query($id: String!) { machine(machineId: $id) { name } }",
            json!({"id": machine}),
        ),
        (
            "query($id: ID!) { volume(id: $id) { name } }",
            json!({"id": volume}),
        ),
    ] {
        let text = world.refused(&token, query, variables);
        assert!(text.starts_with("Could not find App"), "{query}: {text}");
    }
    // Nor does it make tokens, organisations, or end what is not its own.
    for mutation in [
        "mutation { createLimitedAccessToken(input: {name: \"t\", organizationId: \"personal\", \
             profile: \"deploy_organization\"}) { limitedAccessToken { tokenHeader } } }",
        "mutation { createOrganization(input: {name: \"mine\"}) { organization { slug } } }",
        "mutation { deleteOrganization(input: {organizationId: \"personal\"}) \
             { deletedOrganizationId } }",
        "mutation { deleteLimitedAccessToken(input: {id: \"x\"}) { token } }",
        "{ organization(slug: \"personal\") { limitedAccessTokens { nodes { id } } } }",
    ] {
        world.refused(&token, mutation, json!({}));
    }
    for header in ["", "Bearer nonsense", "Basic Og=="] {
        let answer = world.graphql_raw(header, "{\"query\": \"{viewer{email}}\"}");
        assert_eq!(answer.status, 200);
        assert!(
            answer.body.contains("You must be authenticated"),
            "{}",
            answer.body
        );
    }
}

#[test]
fn addresses_are_given_listed_and_taken_back() {
    let Some(world) = World::start() else { return };
    let token = world.token();
    world.ok(&["apps", "create", "found"]);
    world.ok(&["apps", "create", "other"]);
    let give = "mutation($input: AllocateIPAddressInput!) { allocateIpAddress(input: $input) \
         { ipAddress { id address type region } app { sharedIpAddress } } }";
    let list = "query($name: String!) { app(name: $name) \
         { ipAddresses { nodes { address type region } } sharedIpAddress } }";
    let input = json!({"input": {"appId": "found", "type": "v4", "region": ""}});
    let given = world.asked(&token, give, input.clone());
    assert_eq!(
        given["allocateIpAddress"]["ipAddress"]["address"],
        "127.0.0.1"
    );
    let shared = json!({"input": {"appId": "found", "type": "shared_v4"}});
    let given = world.asked(&token, give, shared);
    assert_eq!(
        given["allocateIpAddress"]["app"]["sharedIpAddress"],
        "127.0.0.1"
    );
    let shown = world.asked(&token, list, json!({"name": "found"}));
    let nodes = shown["app"]["ipAddresses"]["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 1, "the shared one stands by itself: {shown}");
    assert_ne!(nodes[0]["region"], "global");
    // Whose app it is not, gives it nothing.
    let text = world.refused(&world.app_token("other"), give, input);
    assert!(text.starts_with("Could not find App"), "{text}");
    let private = json!({"input": {"appId": "found", "type": "private_v6"}});
    let text = world.refused(&token, give, private);
    assert!(text.contains("private_v6"), "{text}");
    let take = "mutation($input: ReleaseIPAddressInput!) { releaseIpAddress(input: $input) \
         { clientMutationId } }";
    let input = json!({"input": {"appId": "found", "ip": "127.0.0.1"}});
    world.asked(&token, take, input.clone());
    let shown = world.asked(&token, list, json!({"name": "found"}));
    assert_eq!(
        shown["app"],
        json!({"ipAddresses": {"nodes": []}, "sharedIpAddress": null})
    );
    world.refused(&token, take, input);
}
