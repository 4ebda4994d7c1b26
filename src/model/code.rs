//! The stable codes that outcomes and violations carry.
//!
//! A code is never renamed or reused; its title and remedy are what the README prints for it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! codes {
    ($($variant:ident $name:literal $title:literal $remedy:literal;)*) => {
        /// Why an intent has its outcome, or what is wrong with a document.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $title] $variant,)*
        }

        impl Code {
            /// All codes, in the order of the README's table.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The name that scripts match on.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// What has happened, in a few words.
            pub fn title(self) -> &'static str {
                match self { $(Code::$variant => $title,)* }
            }

            /// What to do about it.
            pub fn remedy(self) -> &'static str {
                match self { $(Code::$variant => $remedy,)* }
            }
        }
    };
}

codes! {
    Delivered "DELIVERED" "every sink confirmed a change" "nothing to do";
    Unchanged "UNCHANGED" "every sink already was as the intent wants it" "nothing to do";
    Superseded "SUPERSEDED" "a newer intent for the same target took its place before it started"
        "look at `superseded_by`";
    NotJson "NOT_JSON" "the document is not JSON" "mend the syntax at the position given";
    Incomplete "INCOMPLETE" "the document ends in the middle"
        "write to a temporary name and rename when complete";
    TrailingData "TRAILING_DATA" "something follows the document" "write one document to a file";
    DuplicateKey "DUPLICATE_KEY" "an object names a key twice" "keep one of the two";
    NotUtf8 "NOT_UTF8" "the bytes are not UTF-8" "save the file as UTF-8";
    BadCharacter "BAD_CHARACTER" "a control, bidi, zero-width or noncharacter code point"
        "remove it; only `reason` and `description` may hold newlines and tabs";
    NotObject "NOT_OBJECT" "the top level is not an object" "write one JSON object";
    TooLarge "TOO_LARGE" "the file is larger than the limit"
        "shorten it, or raise `intake.size_bytes_max`";
    TooDeep "TOO_DEEP" "objects and arrays are nested more than 64 deep" "flatten the document";
    Empty "EMPTY" "the file stayed empty or blank" "write the document before closing the file";
    BadName "BAD_NAME" "the file's name has characters outside `[A-Za-z0-9._-]`, no id, or `..`"
        "name it `intent-<id>.json` or `<id>.intent.json`";
    NotAFile "NOT_A_FILE" "a FIFO, socket or device" "drop a regular file";
    HardLink "HARD_LINK" "the file kept a second name" "unlink the other name, or copy the file";
    Symlink "SYMLINK" "a symbolic link, which is never followed" "drop the file itself";
    Unreadable "UNREADABLE" "the file cannot be read" "give the service's group read permission";
    ForeignOwner "FOREIGN_OWNER" "the file's owner may not drop intents here"
        "add the owner to `intake.owners`";
    SchemaRequired "SCHEMA_REQUIRED" "a required field is missing" "add the field";
    SchemaUnknownField "SCHEMA_UNKNOWN_FIELD" "the schema knows no such field"
        "remove or rename the field";
    SchemaType "SCHEMA_TYPE" "a value has the wrong type" "use the type that is expected";
    SchemaEnum "SCHEMA_ENUM" "a value is not one of those allowed" "use one of those";
    SchemaMinimum "SCHEMA_MINIMUM" "a number is too small" "raise it";
    SchemaMaximum "SCHEMA_MAXIMUM" "a number is too large" "lower it";
    SchemaPattern "SCHEMA_PATTERN" "a string does not have the form asked for" "mend the string";
    SchemaFormat "SCHEMA_FORMAT" "a string is not in the format asked for" "mend the string";
    SchemaLength "SCHEMA_LENGTH" "a string or array is too short or too long" "mend its length";
    SchemaRule "SCHEMA_RULE" "a rule of the site's schema is broken" "see the site's schema";
    Constraint "CONSTRAINT" "the document breaks its own `constraints`" "mend one of the two";
    Policy "POLICY" "the site's policy forbids it" "ask the site, or change `[policy]`";
    NoTemplate "NO_TEMPLATE" "a deployment intent, and the site names no image and no template"
        "set `compose.deployment_image` or `compose.deployment_template`";
    PackageConflict "PACKAGE_CONFLICT" "something that is not ours stands where the package goes"
        "move it away, then drop the intent again";
    TargetNotFound "TARGET_NOT_FOUND" "the target that the intent names is not there"
        "make it, or mend the intent, then retry";
    TargetAmbiguous "TARGET_AMBIGUOUS" "two manifests are the one that the intent names"
        "remove one, or have the sink look in a narrower `path`, then retry";
    TargetTerminating "TARGET_TERMINATING" "the target, or its namespace, is being deleted"
        "wait until it is there again, then retry";
    HpaConflict "HPA_CONFLICT" "a HorizontalPodAutoscaler decides how many replicas the target has"
        "change its bounds, or let the sink do so with `hpa`, then retry";
    VerifyTimeout "VERIFY_TIMEOUT" "the change was written, and the target did not follow in time"
        "see what holds it up in the message; the change stands";
    RenderFailed "RENDER_FAILED" "Porch could not render the package"
        "mend the package named in the message, then retry";
    FieldConflict "FIELD_CONFLICT" "something else owns the value, or it cannot be changed alone"
        "change it there, or take it away from the owner named in the message, then retry";
    UnsupportedIntent "UNSUPPORTED_INTENT" "the sink, as it is set up, cannot carry out such an intent"
        "send it to a site with another sink or mode";
    Forbidden "FORBIDDEN" "the target refuses our credentials, or these may not do it"
        "give the credentials the rights that the README names, then retry";
    AdmissionDenied "ADMISSION_DENIED" "a rule of the target declined the change"
        "see the rule's words in the message";
    RepositoryNotReady "REPOSITORY_NOT_READY" "the repository cannot take the change yet"
        "see the reason in the message";
    CommandFailed "COMMAND_FAILED" "the command of an exec sink failed"
        "see its output in the message";
    SinkUnavailable "SINK_UNAVAILABLE" "a sink could not be reached or written"
        "see the reason in the message, then drop the intent again";
}

impl Code {
    /// The code of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Code::ALL.iter().copied().find(|code| code.as_str() == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Code::parse(&name).ok_or_else(|| serde::de::Error::custom(format!("no code `{name}`")))
    }
}
