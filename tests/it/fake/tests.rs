//! What the fake promises to tests, beyond what it shares with a real server.

use std::io::ErrorKind;
use std::sync::Arc;

use serde_json::{Value, json};

use super::client::{self, APPLY, MERGE, Watch};
use super::*;
use crate::support::{PATIENCE, wait_until};

const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const SCALE: &str = "/apis/apps/v1/namespaces/default/deployments/web/scale?fieldManager=intentd";

fn with_web() -> Cluster {
    let cluster = Cluster::start();
    cluster.deployment("default", "web", 2);
    cluster
}

fn scale_to(cluster: &Cluster, replicas: u32) -> std::io::Result<client::Answer> {
    let body = json!({"spec": {"replicas": replicas}}).to_string();
    client::send(&cluster.url(), "PATCH", SCALE, Some((MERGE, &body)))
}

/// The status of a Deployment as far as a rollout is judged by it.
fn rollout(object: &Value) -> [Option<i64>; 4] {
    let status = &object["status"];
    [
        object["metadata"]["generation"].as_i64(),
        status["observedGeneration"].as_i64(),
        status["updatedReplicas"].as_i64(),
        status["readyReplicas"].as_i64(),
    ]
}

#[test]
fn prompt_controllers_observe_and_then_finish_as_two_changes() {
    let cluster = with_web();
    let version = client::get(&cluster.url(), "/apis/apps/v1/deployments").unwrap().json();
    let version = version["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let path = format!("/apis/apps/v1/deployments?watch=1&resourceVersion={version}");
    let watch = Watch::start(&cluster.url(), &path).unwrap();
    let answer = scale_to(&cluster, 3).unwrap();
    assert_eq!((answer.status, &answer.json()["status"]["replicas"]), (200, &json!(2)));
    let seen: Vec<_> = watch.take(3).map(|event| rollout(&event.unwrap()["object"])).collect();
    let [two, three] = [Some(2), Some(3)];
    assert_eq!(seen, [[two, Some(1), two, two], [two, two, two, two], [two, two, three, three]]);
}

#[test]
fn held_controllers_wait_for_the_test() {
    let cluster = with_web();
    cluster.pace(Pace::Held);
    scale_to(&cluster, 3).unwrap();
    let state = || rollout(&cluster.get("deployments", "default", "web").unwrap());
    let [two, three] = [Some(2), Some(3)];
    assert_eq!(state(), [two, Some(1), two, two]);
    cluster.observe("web");
    assert_eq!(state(), [two, two, two, two]);
    cluster.release("web");
    assert_eq!(state(), [two, two, three, three]);
}

#[test]
fn a_failed_rollout_says_so_in_its_condition() {
    let cluster = with_web();
    cluster.pace(Pace::Held);
    scale_to(&cluster, 3).unwrap();
    cluster.fail_rollout("deployments", "default", "web");
    let object = cluster.get("deployments", "default", "web").unwrap();
    let reasons: Vec<&Value> =
        object["status"]["conditions"].as_array().unwrap().iter().map(|it| &it["reason"]).collect();
    assert_eq!(reasons, ["ProgressDeadlineExceeded", "MinimumReplicasAvailable"]);
}

#[test]
fn each_fault_is_what_it_says_and_has_the_effect_it_says() {
    let cluster = with_web();
    let replicas = || cluster.replicas("deployments", "default", "web");

    cluster.fail(Fault::too_many(1));
    let answer = scale_to(&cluster, 3).unwrap();
    assert_eq!((answer.status, answer.header("retry-after"), replicas()), (429, "1", 2));

    cluster.fail(Fault::api(500, "InternalError", "etcdserver: request timed out"));
    let answer = scale_to(&cluster, 3).unwrap();
    assert_eq!((answer.status, &answer.json()["reason"]), (500, &json!("InternalError")));

    cluster.fail(Fault::redirect("http://127.0.0.2/"));
    let answer = scale_to(&cluster, 3).unwrap();
    assert_eq!(
        (answer.status, answer.header("location"), replicas()),
        (307, "http://127.0.0.2/", 2)
    );

    cluster.fail(Fault::new(Wrong::CloseBefore));
    assert_eq!(scale_to(&cluster, 3).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(replicas(), 2);

    cluster.fail(Fault::new(Wrong::CloseAfter));
    assert_eq!(scale_to(&cluster, 3).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(replicas(), 3);

    cluster.fail(Fault::new(Wrong::Truncate).on("PATCH").at("/scale").times(2));
    assert_eq!(client::get(&cluster.url(), WEB).unwrap().status, 200);
    for wanted in [4, 5] {
        assert_eq!(scale_to(&cluster, wanted).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(replicas(), i64::from(wanted));
    }

    cluster.fail(Fault::new(Wrong::Drip(std::time::Duration::from_micros(10))));
    assert_eq!((scale_to(&cluster, 6).unwrap().status, replicas()), (200, 6));

    cluster.fail(Fault::new(Wrong::Endless(1 << 20)));
    assert_eq!((scale_to(&cluster, 7).unwrap().text.len(), replicas()), (1 << 20, 6));

    cluster.fail(Fault::status(500, "no").always());
    assert_eq!(scale_to(&cluster, 7).unwrap().status, 500);
    cluster.heal();
    assert_eq!((scale_to(&cluster, 7).unwrap().status, replicas()), (200, 7));
}

#[test]
fn a_blackhole_takes_the_request_and_ends_with_the_server() {
    let mut cluster = with_web();
    cluster.fail(Fault::new(Wrong::Blackhole));
    let url = cluster.url();
    let body = json!({"spec": {"replicas": 9}}).to_string();
    let asked = std::thread::spawn(move || {
        client::send(&url, "PATCH", SCALE, Some((MERGE, &body))).unwrap_err().kind()
    });
    cluster.wait_for_requests("the patch", |requests| requests.len() == 1);
    cluster.stop();
    assert_eq!(asked.join().unwrap(), ErrorKind::UnexpectedEof);
    assert_eq!(cluster.replicas("deployments", "default", "web"), 2);
}

#[test]
fn a_killed_server_refuses_and_comes_back_on_its_port_with_its_data() {
    let mut cluster = with_web();
    let mut watch = Watch::start(&cluster.url(), "/apis/apps/v1/deployments?watch=1").unwrap();
    assert_eq!(watch.next().unwrap().unwrap()["type"], "ADDED");
    cluster.stop();
    assert!(watch.next().unwrap().is_err(), "cut off, not ended");
    assert_eq!(client::get(&cluster.url(), WEB).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    cluster.restart();
    assert_eq!(client::get(&cluster.url(), WEB).unwrap().json()["spec"]["replicas"], 2);
    assert_eq!(cluster.connections(), 2);
}

#[test]
fn rules_say_no_in_the_words_of_the_real_ones() {
    let cluster = with_web();
    let refused = |wanted: u32| {
        let answer = scale_to(&cluster, wanted).unwrap();
        let body = answer.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (answer.status, text(&body["reason"]), text(&body["message"]))
    };
    cluster.expect_token("first");
    let unauthorized = (401, "Unauthorized".to_owned(), "Unauthorized".to_owned());
    assert_eq!(refused(3), unauthorized);
    cluster.with(|state| state.rules.expect_token(None));

    cluster.forbid("patch", "deployments/scale");
    let message = "deployments.apps \"web\" is forbidden: User \
                   \"system:serviceaccount:default:intentd\" cannot patch resource \
                   \"deployments/scale\" in API group \"apps\" in the namespace \"default\"";
    assert_eq!(refused(3), (403, "Forbidden".to_owned(), message.to_owned()));
    cluster.permit("patch", "deployments/scale");

    let message = "at most two".to_owned();
    let refusal = Refusal::Policy { policy: "few".to_owned(), message };
    cluster.refuse("update", "deployments/scale", refusal);
    let message = "deployments.apps \"web\" is forbidden: ValidatingAdmissionPolicy 'few' with \
                   binding 'few' denied request: at most two";
    assert_eq!(refused(3), (422, "Invalid".to_owned(), message.to_owned()));
    cluster.admit_all();

    let (webhook, message) = ("few.example.com".to_owned(), "at most two".to_owned());
    let refusal = Refusal::Webhook { webhook, code: 403, message };
    cluster.refuse("update", "*", refusal);
    let message = "admission webhook \"few.example.com\" denied the request: at most two";
    assert_eq!(refused(3), (403, String::new(), message.to_owned()));
    cluster.admit_all();
    assert_eq!(refused(3).0, 200);
}

#[test]
fn a_forgotten_history_and_an_expired_watch_are_events_of_an_error() {
    let cluster = with_web();
    let old = cluster.with(|state| state.store.version());
    scale_to(&cluster, 3).unwrap();
    cluster.forget_history();
    let path = format!("/apis/apps/v1/deployments?watch=1&resourceVersion={old}");
    let events = client::get(&cluster.url(), &path).unwrap();
    let [event] = events.lines().try_into().unwrap();
    assert_eq!((events.status, &event["type"]), (200, &json!("ERROR")));
    assert_eq!(
        (&event["object"]["code"], &event["object"]["reason"]),
        (&json!(410), &json!("Expired"))
    );

    let path = "/apis/apps/v1/deployments?watch=1&allowWatchBookmarks=true";
    let mut watch = Watch::start(&cluster.url(), path).unwrap();
    let mut next = || watch.next().map(|event| event.unwrap()["type"].clone());
    assert_eq!(next(), Some(json!("ADDED")));
    cluster.bookmark();
    assert_eq!(next(), Some(json!("BOOKMARK")));
    cluster.expire_watches();
    assert_eq!([next(), next()], [Some(json!("ERROR")), None]);
}

#[test]
fn what_no_client_of_ours_does_is_noted() {
    let cluster = with_web();
    let apply = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"}}"#;
    client::send(&cluster.url(), "PATCH", WEB, Some((APPLY, apply))).unwrap();
    client::send(&cluster.url(), "PATCH", SCALE, Some((client::JSON, "{}"))).unwrap();
    client::get(&cluster.url(), &format!("{WEB}?color=red")).unwrap();
    assert_eq!(
        cluster.take_violations(),
        [
            format!("a write without fieldManager: PATCH {WEB}"),
            "a wrong content type: application/json".to_owned(),
            format!("an unknown parameter color: GET {WEB}?color=red"),
        ]
    );
}

#[test]
fn a_test_fails_with_what_no_client_of_ours_does() {
    let cluster = with_web();
    client::get(&cluster.url(), &format!("{WEB}?color=red")).unwrap();
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(cluster)));
    let message = dropped.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("an unknown parameter color"), "{message}");
}

#[test]
fn further_routes_answer_first_and_see_the_store() {
    struct Count;
    impl Routes for Count {
        fn answer(&mut self, request: &Request, store: &mut Store) -> Option<Response> {
            let count = store.list("apps", "deployments", "").len();
            (request.path == "/count").then(|| Response::json(200, &json!(count)))
        }
    }
    let cluster = with_web();
    cluster.route(Box::new(Count));
    assert_eq!(client::get(&cluster.url(), "/count").unwrap().text, "1\n");
    assert_eq!(client::get(&cluster.url(), WEB).unwrap().status, 200);
    assert_eq!(cluster.request_lines(), ["GET /count".to_owned(), format!("GET {WEB}")]);
}

#[test]
fn no_more_connections_than_the_bound_are_served() {
    let cluster = Cluster::start();
    let mut open = Vec::new();
    for count in 1..=301 {
        open.push(std::net::TcpStream::connect(cluster.address).unwrap());
        // Not faster than they are accepted, or the kernel makes some wait for a second.
        wait_until("its turn", || cluster.connections() >= count.min(300));
    }
    // Those beyond the bound are closed; those within stay.
    let last = open.last().unwrap();
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(std::io::Read::read(&mut &*last, &mut [0]).unwrap_or(0), 0);
    assert_eq!(cluster.connections(), 300);
}

/// The status line of an answer over TLS, or why there is none.
fn over_tls(cluster: &Cluster) -> Result<String, rustls::Error> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    let pem = cluster.authority_pem().unwrap();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "127.0.0.1".try_into().unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name)?;
    let socket = std::net::TcpStream::connect(cluster.address).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, socket);
    let request = b"GET /version HTTP/1.1\r\nHost: it\r\nUser-Agent: probe/1\r\n\r\n";
    if let Err(error) = std::io::Write::write_all(&mut stream, request) {
        return Err(*error.into_inner().unwrap().downcast().unwrap());
    }
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stream), &mut line).unwrap();
    Ok(line)
}

#[test]
fn a_server_with_tls_presents_the_certificate_that_is_wanted() {
    use rustls::{CertificateError as Wrong, Error::InvalidCertificate};
    let mut cluster = Cluster::start_tls();
    let kubeconfig = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    assert!(kubeconfig.contains("certificate-authority"), "{kubeconfig}");
    assert_eq!(over_tls(&cluster).unwrap(), "HTTP/1.1 200 OK\r\n");
    cluster.present(Certificate::Expired);
    let error = over_tls(&cluster).unwrap_err();
    assert!(matches!(error, InvalidCertificate(Wrong::ExpiredContext { .. })), "{error:?}");
    cluster.present(Certificate::OtherHost);
    let error = over_tls(&cluster).unwrap_err();
    assert!(matches!(error, InvalidCertificate(Wrong::NotValidForNameContext { .. })), "{error:?}");
    cluster.present(Certificate::UnknownAuthority);
    assert_eq!(over_tls(&cluster).unwrap_err(), InvalidCertificate(Wrong::UnknownIssuer));
    cluster.present(Certificate::Valid);
    assert_eq!(over_tls(&cluster).unwrap(), "HTTP/1.1 200 OK\r\n");
}
