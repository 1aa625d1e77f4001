//! Reads `[[tenant]]`: who its clients are and what they may do.

use segl_wire::Class;

use super::{
    Client, Grant, Key, Limits, Operation, Purpose, San, Tenant,
    findings::Collector,
    read_documents,
    read_tokens::name,
    reader::{At, Section, Value, nearest},
};

/// Most tenants: each has a queue of its own in every class.
const TENANTS_MAX: usize = 1_000;

const CLASSES: [(&str, Class); 3] = [("login", Class::Login), ("signature", Class::Signature), ("bulk", Class::Bulk)];

pub(super) fn tenants(
    sections: Vec<Section<'_>>,
    keys: &[At<Key>],
    limits: &Limits,
    collector: &Collector<'_>,
) -> Vec<Tenant> {
    if sections.is_empty() {
        let hint = "add a [[tenant]]; docs/CONFIGURATION.md has examples";
        collector.missing(&(0..0), "there is no [[tenant]]: every client would be refused", hint);
    }
    if let Some(section) = sections.get(TENANTS_MAX) {
        collector.error(section.span(), format!("more than {TENANTS_MAX} tenants"), "run another segld for the rest");
    }
    let mut tenants: Vec<At<Tenant>> = Vec::new();
    let mut clients: Vec<At<Client>> = Vec::new();
    for section in sections {
        let taken = tenants.iter().map(|tenant| (&tenant.value.name, &tenant.span));
        let name = name(&section, "[[tenant]]", taken);
        let tenant = tenant(&section, &mut clients, keys, limits);
        section.finish();
        tenants.extend(name.map(|name| name.map(|name| Tenant { name, ..tenant })));
    }
    tenants.into_iter().map(|tenant| tenant.value).collect()
}

/// A tenant without its name.
fn tenant(section: &Section<'_>, known: &mut Vec<At<Client>>, keys: &[At<Key>], limits: &Limits) -> Tenant {
    let hint = "who speaks for it: clients = [{ san = \"URI:spiffe://...\" }]";
    let items = section.required("clients", hint).and_then(|value| {
        let items = value.list()?;
        if items.is_empty() {
            value.error("nobody speaks for this tenant", hint);
        }
        Some(items)
    });
    let first = known.len();
    for item in items.unwrap_or_default() {
        let Some(client) = client(item) else { continue };
        if let Some(other) = known.iter().find(|other| overlaps(&other.value, &client)) {
            let text = format!("{} is a client already, on {}", client.san, section.collector().line(&other.span));
            let hint =
                "a client belongs to one tenant; two certificates of one name must both be pinned by spki_sha256";
            item.error(text, hint);
        }
        known.push(item.at(client));
    }
    let clients = known[first..].iter().map(|client| client.value.clone()).collect();
    let in_flight_max = section.count("in_flight_max", limits.in_flight_per_tenant, 1..=1_000_000);
    let sections = section.sections("grant", "[[tenant.grant]]");
    if sections.is_empty() {
        section.collector().warning(section.span(), "this tenant may do nothing", "add a [[tenant.grant]] below it");
    }
    let mut grants: Vec<At<Grant>> = Vec::new();
    for section in sections {
        let grant = grant(&section, &grants, keys);
        section.finish();
        grants.extend(grant);
    }
    Tenant { name: "".into(), clients, in_flight_max, grants: grants.into_iter().map(|grant| grant.value).collect() }
}

/// Whether some certificate would be both.
fn overlaps(one: &Client, other: &Client) -> bool {
    let same_pin = match (&one.spki_sha256, &other.spki_sha256) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    one.san == other.san && same_pin
}

fn client(value: Value<'_>) -> Option<Client> {
    let table = value.table()?;
    let hint = "san = \"URI:spiffe://...\" or \"DNS:broker.example\"";
    let san = table.required("san", hint).and_then(san);
    let pin = table.value("spki_sha256").map(spki_sha256);
    table.finish();
    let (san, spki_sha256) = match pin {
        None => (san?, None),
        Some(pin) => (san?, Some(pin?)),
    };
    Some(Client { san, spki_sha256 })
}

fn san(value: Value<'_>) -> Option<San> {
    let text = value.text()?;
    let printable = |text: &str| text.len() <= 2_048 && text.bytes().all(|b| b.is_ascii_graphic());
    if let Some(uri) = text.strip_prefix("URI:")
        && uri.contains(':')
        && printable(uri)
    {
        return Some(San::Uri(uri.to_owned()));
    }
    if let Some(name) = text.strip_prefix("DNS:")
        && !name.is_empty()
        && printable(name)
    {
        if name.contains('*') {
            value.error("a wildcard says nothing about who it is", "name each client");
            return None;
        }
        return Some(San::Dns(name.to_ascii_lowercase()));
    }
    value.wrong("a name as certificates carry it", "\"URI:spiffe://...\" or \"DNS:broker.example\"");
    None
}

fn spki_sha256(value: Value<'_>) -> Option<[u8; 32]> {
    let text = value.text()?;
    let digit = |b: u8| char::from(b).to_digit(16);
    let bytes: Option<Vec<u8>> =
        text.as_bytes().chunks(2).map(|pair| Some((digit(pair[0])? << 4 | digit(*pair.get(1)?)?) as u8)).collect();
    let pin = bytes.and_then(|bytes| bytes.try_into().ok());
    if pin.is_none() {
        let hint = "openssl x509 -in client.pem -pubkey -noout | openssl pkey -pubin -outform der | sha256sum";
        value.wrong("64 hexadecimal digits", hint);
    }
    pin
}

fn grant(section: &Section<'_>, earlier: &[At<Grant>], keys: &[At<Key>]) -> Option<At<Grant>> {
    let collector = section.collector();
    let key_at = section.required("key", "which key it may use: key = \"...\"");
    let name = key_at.and_then(|value| Some(value.at(value.text()?)));
    let key = name.as_ref().and_then(|name| granted_key(name, earlier, keys, collector));
    let key = key.map(|key| &key.value);
    let purpose = key.map_or(Purpose::Digest, |key| key.purpose);
    let choices = Operation::ALL.map(|operation| (operation.name(), operation));
    let operations = match section.value("operations").map(|value| value.distinct(|item| item.one_of(&choices))) {
        None => by_purpose(key, name.as_ref(), collector),
        Some(given) => operations(given.unwrap_or_default(), purpose, collector),
    };
    let choices = segl_hsm::Algorithm::ALL.map(|algorithm| (algorithm.name(), algorithm));
    let of_key = key.map(|key| key.algorithms.clone());
    let algorithms = match section.value("algorithms").map(|value| value.distinct(|item| item.one_of(&choices))) {
        None => of_key.unwrap_or_default(),
        Some(given) => {
            let given = given.unwrap_or_default();
            for algorithm in &given {
                if of_key.as_ref().is_some_and(|of_key| !of_key.contains(&algorithm.value)) {
                    let text = format!("the key itself may not be used with {}", algorithm.value);
                    collector.error(&algorithm.span, text, "take it out, or add it to the key's `algorithms`");
                }
            }
            given.into_iter().map(|algorithm| algorithm.value).collect()
        }
    };
    let classes = section.value("classes").and_then(|value| value.distinct(|item| item.one_of(&CLASSES)));
    let classes = match classes {
        None => CLASSES.map(|(_, class)| class).to_vec(),
        Some(given) => given.into_iter().map(|class| class.value).collect(),
    };
    let assertion = read_documents::assertion(section, &operations, name.as_ref());
    let jws = read_documents::jws(section, &operations, name.as_ref());
    let name = name?;
    let key = name.value.into();
    Some(At { span: name.span, value: Grant { key, operations, algorithms, classes, assertion, jws } })
}

fn granted_key<'k>(
    name: &At<&str>,
    earlier: &[At<Grant>],
    keys: &'k [At<Key>],
    collector: &Collector<'_>,
) -> Option<&'k At<Key>> {
    if let Some(other) = earlier.iter().find(|grant| &*grant.value.key == name.value) {
        let text =
            format!("this tenant has a grant for \"{}\" already, on {}", name.value, collector.line(&other.span));
        collector.error(&name.span, text, "put both into one");
    }
    let key = keys.iter().find(|key| &*key.value.name == name.value);
    match key {
        None => {
            let hint = match nearest(name.value, keys.iter().map(|key| &*key.value.name)) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "add a [[key]] of that name, or correct it".to_owned(),
            };
            collector.missing(&name.span, format!("there is no key \"{}\"", name.value), hint);
        }
        Some(key) if key.value.purpose == Purpose::SelfTest => {
            let text = format!("\"{}\" is for self-tests: nobody else uses it", name.value);
            collector.error(&name.span, text, "take the grant out");
        }
        Some(_) => {}
    }
    key
}

/// What the key's purpose allows; an empty answer is worth a word.
fn by_purpose(key: Option<&Key>, name: Option<&At<&str>>, collector: &Collector<'_>) -> Vec<Operation> {
    let (Some(key), Some(name)) = (key, name) else { return Vec::new() };
    let allowed: Vec<_> = Operation::ALL.into_iter().filter(|operation| key.purpose.allows(*operation)).collect();
    if allowed.is_empty() && key.purpose != Purpose::SelfTest {
        let text =
            format!("there is no operation for keys with the purpose \"{}\" yet: nobody can use it", key.purpose);
        collector.warning(&name.span, text, "the tenant will see the key; take the grant out, or leave it for later");
    }
    allowed
}

fn operations(given: Vec<At<Operation>>, purpose: Purpose, collector: &Collector<'_>) -> Vec<Operation> {
    for operation in &given {
        if !purpose.allows(operation.value) {
            let text = format!("the key's purpose \"{purpose}\" forbids the operation \"{}\"", operation.value);
            let hint = "take it out: who signs raw digests with such a key signs anything; use a key for digests";
            collector.error(&operation.span, text, hint);
        }
    }
    given.into_iter().map(|operation| operation.value).collect()
}
