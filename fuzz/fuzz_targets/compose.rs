//! A package says what its document says, whatever stands in the free text: every file is YAML, and
//! the document and the wish read back equal.

#![no_main]

use std::sync::LazyLock;

use intentd::compose::{self, Package, Settings, compose};
use intentd::model::{Intent, IntentType};
use intentd::schema::{Policy, Schema};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::builtin);

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| Settings {
    deployment_image: Some("images.example/nf:1.0".to_owned()),
    ..Settings::default()
});

fuzz_target!(|bytes: &[u8]| {
    // A whole document where it is one; otherwise its pieces become the free text of one.
    match SCHEMA.judge(bytes, &Policy::default()) {
        Ok(intent) => check(&intent),
        Err(_) => check(&from_pieces(bytes)),
    }
});

/// An intent with hostile text in every field that takes text; no reader of it is spared by the
/// schema.
fn from_pieces(bytes: &[u8]) -> Intent {
    let text = String::from_utf8_lossy(bytes);
    let mut pieces = text.split('\0');
    let mut piece = || pieces.next().unwrap_or_default();
    let kinds = ["scaling", "deployment", "configuration"];
    let kind = kinds[bytes.first().map_or(0, |byte| usize::from(*byte) % kinds.len())];
    let document = json!({
        "intent_type": kind, "target": "nf-sim", "namespace": "1e3", "replicas": 1,
        "reason": piece(), "description": piece(), "correlation_id": piece(),
        "target_resources": [piece(), piece()],
        "nephio_context": {"blueprint_name": piece(), "workload_cluster": piece()},
        "constraints": {"kpt_package_name": piece(), "x": {(piece()): piece()}},
    });
    serde_json::from_value(document).expect("the fields are those of an intent")
}

fn check(intent: &Intent) {
    let package = compose(intent, &SETTINGS).expect("the site has an image");
    assert_eq!(compose(intent, &SETTINGS).expect("as before"), package);
    for file in &package.files {
        assert!(file.text.is_ascii() && file.text.ends_with('\n'), "{}", file.text);
        assert!(!file.text.contains(|char: char| char.is_control() && char != '\n'));
    }
    let document = embedded(&package, compose::INTENT_FILE, "intent.json");
    assert_eq!(serde_json::from_str::<Intent>(&document).expect("a document"), *intent);
    assert_eq!(compose::read_key(&package.files[2].text), Some(intent.key()));
    let resource = read(&package, package.files[1].name);
    match intent.intent_type {
        IntentType::Scaling | IntentType::Deployment => {
            assert_eq!(resource["metadata"]["name"], intent.target.as_str());
            assert_eq!(resource["metadata"]["namespace"], intent.namespace.as_str());
            assert_eq!(resource["spec"]["replicas"], intent.replicas);
        }
        IntentType::Configuration => {
            let wish = embedded(&package, "configuration.yaml", "configuration.json");
            let wish: Value = serde_json::from_str(&wish).expect("a wish");
            let whole = serde_json::to_value(intent).expect("an intent can be written");
            for (key, value) in wish.as_object().expect("an object") {
                assert_eq!(whole[key], *value, "{key}");
            }
        }
    }
}

fn read(package: &Package, name: &str) -> Value {
    let file = package.files.iter().find(|file| file.name == name).expect("the file is there");
    serde_saphyr::from_str(&file.text).expect("each file is YAML")
}

fn embedded(package: &Package, name: &str, key: &str) -> String {
    let resource = read(package, name);
    resource["data"][key].as_str().expect("the value is a string").to_owned()
}
