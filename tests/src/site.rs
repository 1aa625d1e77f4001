//! A whole installation in one directory: PKI, token with keys, the two configurations, and its daemons as processes.
//!
//! Two tenants: [`FIRST`] may use every key, [`SECOND`] only the P-256 one. Each has its own client certificate, and
//! one caller at the broker, told by its bearer token.

use std::{
    fmt::Write as _,
    hash::{BuildHasher as _, RandomState},
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    Result,
    http::Http,
    openssl,
    pki::{Authority, Identity, IdentityFiles, write_private},
    process::Service,
    programs,
    softhsm::SoftHsm,
};

/// The tenant that may use every key.
pub const FIRST: &str = "town-hall";
/// The tenant that may use [`P256`] alone.
pub const SECOND: &str = "tax-office";

/// An RSA-3072 key.
pub const RSA: &str = "seal-rsa";
/// A P-256 key.
pub const P256: &str = "seal-p256";
/// A P-384 key.
pub const P384: &str = "seal-p384";
/// An Ed25519 key.
pub const ED25519: &str = "seal-ed25519";

/// Long enough for a token with four RSA and EC keys to open on a loaded machine.
const READY: Duration = Duration::from_secs(60);

/// Which token signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// Keys in the daemon's own process
    Embedded,
    /// SoftHSM2 behind its PKCS#11 module
    SoftHsm,
    /// Kryoptic, whose module `SEGL_KRYOPTIC` names
    Kryoptic,
}

/// A key as this installation names and makes it.
struct Key {
    name: &'static str,
    embedded: &'static str,
    pkcs11: &'static str,
    algorithms: &'static [&'static str],
}

const KEYS: [Key; 4] = [
    Key {
        name: RSA,
        embedded: "rsa-3072",
        pkcs11: "rsa:3072",
        algorithms: &[
            "rsa-pkcs1-sha256",
            "rsa-pkcs1-sha384",
            "rsa-pkcs1-sha512",
            "rsa-pss-sha256",
            "rsa-pss-sha384",
            "rsa-pss-sha512",
        ],
    },
    Key { name: P256, embedded: "ec-p256", pkcs11: "EC:prime256v1", algorithms: &["ecdsa-p256-sha256"] },
    Key { name: P384, embedded: "ec-p384", pkcs11: "EC:secp384r1", algorithms: &["ecdsa-p384-sha384"] },
    Key { name: ED25519, embedded: "ed25519", pkcs11: "EC:edwards25519", algorithms: &["ed25519"] },
];

/// One tenant's means.
#[derive(Debug)]
pub struct Tenant {
    /// [`FIRST`] or [`SECOND`]
    pub name: &'static str,
    /// The URI in its client certificate
    pub uri: String,
    /// Its client certificate towards segld
    pub identity: Identity,
    /// The same, as files
    pub files: IdentityFiles,
    /// Its caller's bearer token at the broker
    pub bearer: String,
}

/// The installation. The configurations are plain text that a caller may change before it starts the daemons, or write
/// again before it sends SIGHUP.
#[derive(Debug)]
pub struct Site {
    /// Where everything is
    pub dir: PathBuf,
    /// Issues the daemons' certificates
    pub servers: Authority,
    /// Issues the tenants' certificates
    pub clients: Authority,
    /// [`FIRST`], then [`SECOND`]
    pub tenants: [Tenant; 2],
    /// Where segld serves clients, as `localhost`
    pub segld: SocketAddr,
    /// Where segld serves metrics and health
    pub segld_admin: SocketAddr,
    /// Where the broker serves callers, as `localhost`
    pub broker: SocketAddr,
    /// Where the broker serves metrics and health
    pub broker_admin: SocketAddr,
    /// `segld.toml`
    pub segld_toml: String,
    /// `segl-broker.toml`
    pub broker_toml: String,
    softhsm: Option<SoftHsm>,
}

impl Site {
    /// Makes one in `dir`, which is made too, and must be empty. `ports` are tried first, in the order of the addresses
    /// above; free ones take the place of those that are taken or missing.
    pub fn create(dir: &Path, token: Token, ports: &[u16]) -> Result<Self> {
        let pki = dir.join("pki");
        std::fs::create_dir_all(&pki)?;
        let (servers, clients) = (Authority::new("Segl servers")?, Authority::new("Segl clients")?);
        std::fs::write(pki.join("servers-ca.pem"), servers.pem())?;
        std::fs::write(pki.join("clients-ca.pem"), clients.pem())?;
        std::fs::write(pki.join("clients.crl"), clients.crl(1, &[], Duration::from_secs(30 * 86_400))?)?;
        for daemon in ["segld", "segl-broker"] {
            servers.server(&["localhost", "127.0.0.1"])?.write(&pki, daemon)?;
        }
        let tenants = [tenant(&clients, &pki, FIRST)?, tenant(&clients, &pki, SECOND)?];
        let softhsm = match token {
            Token::Embedded => None,
            Token::SoftHsm => Some(SoftHsm::create(&dir.join("softhsm"), "segl")?),
            Token::Kryoptic => {
                let module = std::env::var_os("SEGL_KRYOPTIC").ok_or("SEGL_KRYOPTIC names no module")?;
                Some(SoftHsm::create_kryoptic(Path::new(&module), &dir.join("kryoptic"), "segl")?)
            }
        };
        let [segld, segld_admin, broker, broker_admin] = free_addresses(ports)?;
        let (segld_toml, broker_toml) = (String::new(), String::new());
        let dir = dir.to_path_buf();
        let mut site = Site {
            dir,
            servers,
            clients,
            tenants,
            segld,
            segld_admin,
            broker,
            broker_admin,
            segld_toml,
            broker_toml,
            softhsm,
        };
        site.segld_toml = site.write_segld_toml()?;
        site.broker_toml = site.write_broker_toml()?;
        site.write()?;
        Ok(site)
    }

    /// Writes both configurations as they are now.
    pub fn write(&self) -> Result<()> {
        std::fs::write(self.segld_config(), &self.segld_toml)?;
        std::fs::write(self.broker_config(), &self.broker_toml)?;
        Ok(())
    }

    /// Path of `segld.toml`.
    pub fn segld_config(&self) -> PathBuf {
        self.dir.join("segld.toml")
    }

    /// Path of `segl-broker.toml`.
    pub fn broker_config(&self) -> PathBuf {
        self.dir.join("segl-broker.toml")
    }

    /// The journal's directory.
    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// The revocation list that segld was given; written anew, it is taken at the next SIGHUP.
    pub fn crl(&self) -> PathBuf {
        self.dir.join("pki/clients.crl")
    }

    /// segld's control socket.
    pub fn control(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// The PKCS#11 token, where there is one.
    pub fn softhsm(&mut self) -> Option<&mut SoftHsm> {
        self.softhsm.as_mut()
    }

    /// The command that runs segld here, for those who start it themselves.
    pub fn segld_command(&self) -> Command {
        let mut command = Command::new(programs::segld());
        command.arg("--config").arg(self.segld_config());
        if let Some(softhsm) = &self.softhsm {
            let (variable, configuration) = softhsm.environment();
            command.env(variable, configuration);
        }
        command
    }

    /// The command that runs the broker here.
    pub fn broker_command(&self) -> Command {
        let mut command = Command::new(programs::broker());
        command.arg("--config").arg(self.broker_config());
        command
    }

    /// The command that asks segld here something.
    pub fn segl_command(&self) -> Command {
        let mut command = Command::new(programs::segl());
        command.arg("--socket").arg(self.control()).arg("--timeout").arg("30");
        command
    }

    /// Starts segld and waits until it says that it is ready, and then until its keys sign.
    pub fn start_segld(&self) -> Result<Service> {
        let mut service = Service::start(self.segld_command(), &self.dir, "segld")?;
        service.ready(READY)?;
        await_keys(&self.segld_admin()?)?;
        Ok(service)
    }

    /// Starts the broker and waits until it says that it is ready, and then until it reaches keys that sign.
    pub fn start_broker(&self) -> Result<Service> {
        let mut service = Service::start(self.broker_command(), &self.dir, "segl-broker")?;
        service.ready(READY)?;
        await_keys(&self.broker_admin()?)?;
        Ok(service)
    }

    /// A caller of the broker, on behalf of one of the tenants.
    pub fn caller(&self, tenant: &Tenant) -> Result<Http> {
        let base = format!("https://localhost:{}", self.broker.port());
        Ok(Http::new(&base, &self.servers.pem(), None)?.with_bearer(&tenant.bearer))
    }

    /// A client of segld's metrics and health.
    pub fn segld_admin(&self) -> Result<Http> {
        Http::new(&format!("http://{}", self.segld_admin), &self.servers.pem(), None)
    }

    /// A client of the broker's metrics and health.
    pub fn broker_admin(&self) -> Result<Http> {
        Http::new(&format!("http://{}", self.broker_admin), &self.servers.pem(), None)
    }

    fn write_segld_toml(&mut self) -> Result<String> {
        let mut toml = format!(
            r#"# Made by Segl's demo and tests: a development installation.
[listen]
addresses = ["{}"]

[admin]
address = "{}"

[control]
socket = "control.sock"

[tls]
certificate = "pki/segld.pem"
private_key = "pki/segld.key"
client_ca = "pki/clients-ca.pem"
crls = ["pki/clients.crl"]

[audit]
directory = "journal"
segment_size = "4MiB"
"#,
            self.segld, self.segld_admin
        );
        let mut locators = Vec::new();
        match &mut self.softhsm {
            Some(softhsm) => {
                for key in &KEYS {
                    let attributes = softhsm.generate(key.pkcs11, key.name)?;
                    locators.push(format!("uri = \"pkcs11:{attributes}\""));
                }
                write!(
                    toml,
                    "\n[[token]]\nname = \"softhsm\"\nkind = \"pkcs11\"\nmodule = {:?}\nuri = \"pkcs11:token={}\"\n\
                     pin_file = \"{}\"\nsessions = 4\n",
                    softhsm.module(),
                    softhsm.label(),
                    softhsm.pin_file().display()
                )?;
            }
            None => {
                toml.push_str(
                    "\n[[token]]\nname = \"embedded\"\nkind = \"embedded\"\ndirectory = \"keys\"\ngenerate = [\n",
                );
                for key in &KEYS {
                    writeln!(toml, "    {{ file = \"{}.pem\", type = \"{}\" }},", key.name, key.embedded)?;
                    locators.push(format!("file = \"{}.pem\"", key.name));
                }
                toml.push_str("]\n");
            }
        }
        let token = if self.softhsm.is_some() { "softhsm" } else { "embedded" };
        for (key, locator) in KEYS.iter().zip(locators) {
            write!(
                toml,
                "\n[[key]]\nname = \"{}\"\npurpose = \"digest\"\ntokens = [\"{token}\"]\n{locator}\nalgorithms = {:?}\n",
                key.name, key.algorithms
            )?;
            if key.name == RSA {
                toml.push_str("accept_legacy = true # PKCS#1 v1.5, which ETSI TS 119 312 calls legacy\n");
            }
        }
        for tenant in &self.tenants {
            let uri = &tenant.uri;
            write!(toml, "\n[[tenant]]\nname = \"{}\"\nclients = [{{ san = \"URI:{uri}\" }}]\n", tenant.name)?;
            for key in keys_of(tenant.name) {
                write!(toml, "[[tenant.grant]]\nkey = \"{key}\"\n")?;
            }
        }
        Ok(toml)
    }

    fn write_broker_toml(&self) -> Result<String> {
        let mut toml = format!(
            r#"# Made by Segl's demo and tests: a development installation.
[http]
listen = ["{}"]
certificate = "pki/segl-broker.pem"
private_key = "pki/segl-broker.key"
client_ca = "pki/clients-ca.pem"

[admin]
listen = "{}"

[upstream]
ca = "pki/servers-ca.pem"

[[segld]]
name = "room-1"
address = "{}"
server_name = "localhost"
"#,
            self.broker, self.broker_admin, self.segld
        );
        for tenant in &self.tenants {
            let name = tenant.name;
            write!(
                toml,
                "\n[[tenant]]\nname = \"{name}\"\ncertificate = \"pki/{name}.pem\"\nprivate_key = \"pki/{name}.key\"\n"
            )?;
            write!(
                toml,
                "\n[[caller]]\nname = \"{name}-portal\"\ntenant = \"{name}\"\nbearer_sha256 = [\"{}\"]\nkeys = {:?}\n\
                 operations = [\"sign\", \"sign-batch\", \"keys\"]\n",
                hex(&openssl::input_of("sha256", tenant.bearer.as_bytes())?),
                keys_of(name)
            )?;
        }
        Ok(toml)
    }
}

/// Waits until a daemon's `/readyz` says that keys sign: READY=1 says only that it serves, and a token may take longer.
/// A broker is ready when some tenant is; here all of them are waited for.
pub fn await_keys(admin: &Http) -> Result<()> {
    let deadline = Instant::now() + READY;
    loop {
        let answer = admin.get("/readyz").map_err(|error| error.to_string());
        if answer.as_ref().is_ok_and(|answer| answer.status == 200 && every_tenant_is_ready(&answer.json)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("not ready after {} s: {answer:?}", READY.as_secs()).into());
        }
        // Nothing tells when a key becomes able to sign but asking again.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// In a broker's answer to its operator; segld's says nothing of tenants.
fn every_tenant_is_ready(answer: &serde_json::Value) -> bool {
    answer["tenants"].as_array().into_iter().flatten().all(|tenant| tenant["ready"] == true)
}

fn keys_of(tenant: &str) -> Vec<&'static str> {
    if tenant == FIRST { KEYS.map(|key| key.name).to_vec() } else { vec![P256] }
}

fn tenant(authority: &Authority, pki: &Path, name: &'static str) -> Result<Tenant> {
    let uri = format!("spiffe://segl.example/{name}");
    let identity = authority.client(&uri)?;
    let files = identity.write(pki, name)?;
    // A fresh certificate key's own hash: nobody who has not read the directory can guess it.
    let bearer = hex(&openssl::input_of("sha256", identity.key_pem.as_bytes())?);
    write_private(&pki.join(format!("{name}.bearer")), bearer.as_bytes())?;
    Ok(Tenant { name, uri, identity, files, bearer })
}

/// Ports that the kernel gives to no client's end of a connection (ip_local_port_range(7)): one that is free stays so, as
/// far as tests do not meet in it.
const SERVERS_PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Loopback addresses whose ports were free a moment ago: all are held until the last is found. `ports` are tried first.
pub fn free_addresses<const N: usize>(ports: &[u16]) -> Result<[SocketAddr; N]> {
    let mut wanted = ports.iter().copied();
    // Each test is a process and begins elsewhere.
    let anywhere = RandomState::new().hash_one(0) as usize % SERVERS_PORTS.len();
    let mut others = SERVERS_PORTS.cycle().skip(anywhere);
    let mut held = Vec::new();
    while held.len() < N {
        let port = wanted.next().or_else(|| others.next()).expect("the others never end");
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => held.push(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => return Err(error.into()),
        }
    }
    let addresses = held.iter().map(TcpListener::local_addr).collect::<std::io::Result<Vec<_>>>()?;
    Ok(addresses.try_into().expect("as many as asked for"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
