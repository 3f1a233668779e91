//! The header: core (what the object is), stanzas (who can open it), MAC and checksum. Parsed strictly, with bounds.

use std::io::Read;

use sha2::{Digest, Sha256};

use super::seal;
use crate::error::{Error, Result};
use crate::model::Time;

/// What tells an object from every other ([`Header::id`]).
pub type ObjectId = [u8; 16];

/// First bytes of every object: a byte above 127, letters, and line ends that a text transfer would change.
pub const MAGIC: [u8; 8] = *b"\x89BGO\r\n\x1a\n";
/// The format version written and read.
pub const VERSION: u16 = 1;

const FIXED: usize = 98; // bytes of the core before the name
const MAX_CORE: usize = 8192;
const MAX_NAME: usize = 1024;
const MAX_STANZAS: u16 = 64;
const MAX_STANZA: u16 = 2048;

macro_rules! ids {
    ($(#[$m:meta])* $name:ident, $what:literal { $($(#[$vm:meta])* $v:ident = $n:literal => $text:literal),+ $(,)? }) => {
        $(#[$m])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vm])* $v),+ }
        impl $name {
            /// The number in the header.
            pub fn id(self) -> u8 {
                match self { $(Self::$v => $n),+ }
            }
            /// From the number in the header.
            pub fn from_id(id: u8) -> Result<Self> {
                match id {
                    $($n => Ok(Self::$v),)+
                    _ => Err(Error::check(format!(concat!("unknown ", $what, " {}"), id))
                        .why("the object is damaged or was written by a newer breakglass")),
                }
            }
            /// The name used in manifests and messages.
            pub fn name(self) -> &'static str {
                match self { $(Self::$v => $text),+ }
            }
        }
    };
}

ids!(
    /// What an object holds.
    ObjectType, "object type" {
        /// A WAL segment (or a `.partial` one).
        WalSegment = 1 => "wal segment",
        /// A timeline history file.
        WalHistory = 2 => "timeline history",
        /// A `.backup` file of the archive.
        WalBackup = 3 => "wal backup label",
        /// A base backup as one tar stream.
        BaseBackup = 4 => "base backup",
        /// The manifest of a backup.
        Manifest = 5 => "manifest",
        /// An entry of the catalog.
        CatalogEntry = 6 => "catalog entry",
        /// A logical dump.
        LogicalDump = 7 => "logical dump",
        /// Files and configuration.
        Files = 8 => "files",
        /// What was read of some WAL segments.
        WalIndex = 9 => "wal index",
        /// Which name belonged to which file of the cluster.
        NameMap = 10 => "name map",
    }
);

ids!(
    /// How frames are compressed.
    Compression, "compression" {
        /// Not at all.
        None = 0 => "none",
        /// Each frame is one zstd frame of its own.
        Zstd = 1 => "zstd",
    }
);

impl ObjectType {
    /// Whether the footer carries a content tag (so that archiving the same file twice is seen without a key).
    pub fn has_content_tag(self) -> bool {
        matches!(self, Self::WalSegment | Self::WalHistory | Self::WalBackup)
    }
}

/// What to write into a header.
#[derive(Debug, Clone)]
pub struct Spec {
    /// What the object holds.
    pub object: ObjectType,
    /// Compression of the frames.
    pub compression: Compression,
    /// Plain bytes per chunk: a power of two from 4 KiB to 16 MiB.
    pub chunk_size: u32,
    /// Plain bytes per frame: a power of two from 4 KiB to 16 MiB.
    pub frame_size: u32,
    /// The repository the object belongs to.
    pub repository: [u8; 16],
    /// System identifier of the PostgreSQL cluster; 0 when it does not apply or is not known.
    pub system_identifier: u64,
    /// Timeline; 0 when it does not apply.
    pub timeline: u32,
    /// When the object was begun.
    pub created_at: Time,
    /// The object's name in the store; an object under another name is refused.
    pub name: String,
}

impl Spec {
    /// A spec with the usual sizes: 1 MiB chunks, 1 MiB frames, zstd.
    pub fn new(object: ObjectType, repository: [u8; 16], name: impl Into<String>, created_at: Time) -> Self {
        Self {
            object,
            compression: Compression::Zstd,
            chunk_size: 1 << 20,
            frame_size: 1 << 20,
            repository,
            system_identifier: 0,
            timeline: 0,
            created_at,
            name: name.into(),
        }
    }
}

/// What the reader insists on.
#[derive(Debug, Clone, Copy)]
pub struct Expect<'a> {
    /// The object's type.
    pub object: ObjectType,
    /// The repository it must belong to.
    pub repository: [u8; 16],
    /// The name it was asked for by.
    pub name: &'a str,
}

/// A parsed header. Nothing in it is authenticated until the MAC was checked.
#[derive(Debug, Clone)]
pub struct Header {
    /// The fields.
    pub spec: Spec,
    /// Random per object; salts every derived key.
    pub salt: [u8; 32],
    /// Type and body of each wrapped file key.
    pub stanzas: Vec<(u16, Vec<u8>)>,
    /// SHA-256 of the core.
    pub core_hash: [u8; 32],
    /// Length of the whole header in bytes.
    pub len: u64,
    pub(super) core: Vec<u8>,
    pub(super) signed: Vec<u8>,
    pub(super) mac: [u8; 32],
}

fn power_between(size: u32, what: &str) -> Result<u32> {
    if size.is_power_of_two() && (1 << 12..=1 << 24).contains(&size) {
        return Ok(size);
    }
    Err(Error::check(format!("{what} of {size} bytes")).why("only powers of two from 4096 to 16777216 are allowed"))
}

/// The bytes of the core.
pub(super) fn encode_core(spec: &Spec, salt: &[u8; 32]) -> Result<Vec<u8>> {
    power_between(spec.chunk_size, "chunk size")?;
    power_between(spec.frame_size, "frame size")?;
    check_name(&spec.name)?;
    let name = spec.name.as_bytes();
    let len = FIXED + name.len() + 2;
    let mut core = Vec::with_capacity(len);
    core.extend_from_slice(&MAGIC);
    core.extend_from_slice(&VERSION.to_be_bytes());
    core.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
    core.extend_from_slice(&[spec.object.id(), CIPHER_STREAM_AES256GCM, KDF_HKDF_SHA256, spec.compression.id()]);
    core.extend_from_slice(&spec.chunk_size.to_be_bytes());
    core.extend_from_slice(&spec.frame_size.to_be_bytes());
    core.extend_from_slice(salt);
    core.extend_from_slice(&spec.repository);
    core.extend_from_slice(&spec.system_identifier.to_be_bytes());
    core.extend_from_slice(&spec.timeline.to_be_bytes());
    core.extend_from_slice(&[0; 4]);
    core.extend_from_slice(&spec.created_at.micros().to_be_bytes());
    core.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
    core.extend_from_slice(name);
    core.extend_from_slice(&0u16.to_be_bytes()); // no attributes
    Ok(core)
}

const CIPHER_STREAM_AES256GCM: u8 = 1;
const KDF_HKDF_SHA256: u8 = 1;

/// Names are relative paths of plain characters, so that no name can leave the repository or confuse a terminal.
pub fn check_name(name: &str) -> Result<()> {
    let ok = !name.is_empty()
        && name.len() <= MAX_NAME
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
        && name.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
    if ok { Ok(()) } else { Err(Error::check(format!("{name:?} is not the name of an object"))) }
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        if n > self.0.len() {
            return Err(Error::check("the header ends too early"));
        }
        let (a, b) = self.0.split_at(n);
        self.0 = b;
        Ok(a)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0u8; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }
    fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }
    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }
    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }
    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }
}

fn parse_core(core: &[u8]) -> Result<(Spec, [u8; 32])> {
    let mut c = Cursor(core);
    c.take(12)?; // magic, version and length, checked by the caller
    let object = ObjectType::from_id(c.u8()?)?;
    let (cipher, kdf) = (c.u8()?, c.u8()?);
    if (cipher, kdf) != (CIPHER_STREAM_AES256GCM, KDF_HKDF_SHA256) {
        return Err(Error::check(format!("unknown cipher {cipher} or key derivation {kdf}")));
    }
    let compression = Compression::from_id(c.u8()?)?;
    let chunk_size = power_between(c.u32()?, "chunk size")?;
    let frame_size = power_between(c.u32()?, "frame size")?;
    let salt = c.array()?;
    let repository = c.array()?;
    let system_identifier = c.u64()?;
    let timeline = c.u32()?;
    if c.u32()? != 0 {
        return Err(Error::check("reserved bytes of the header are not zero"));
    }
    let created_at = Time::from_micros(i64::from_be_bytes(c.array()?));
    let name_len = usize::from(c.u16()?);
    let name = String::from_utf8_lossy(c.take(name_len)?).into_owned();
    check_name(&name)?;
    for _ in 0..c.u16()? {
        let tag = c.u16()?;
        let len = usize::from(c.u16()?);
        c.take(len)?;
        // Attributes are for later versions of this program; one that must not be ignored has the high bit set.
        if tag & 0x8000 != 0 {
            return Err(Error::check(format!("the object needs attribute {tag:#06x}"))
                .why("it was written by a newer breakglass"));
        }
    }
    if !c.0.is_empty() {
        return Err(Error::check("bytes left over at the end of the header's core"));
    }
    let spec =
        Spec { object, compression, chunk_size, frame_size, repository, system_identifier, timeline, created_at, name };
    Ok((spec, salt))
}

impl Header {
    /// Header bytes and parsed form of a new object.
    pub(super) fn build(core: Vec<u8>, stanzas: Vec<(u16, Vec<u8>)>, mac_key: &[u8; 32]) -> Result<(Self, Vec<u8>)> {
        let (spec, salt) = parse_core(&core)?;
        let core_hash: [u8; 32] = Sha256::digest(&core).into();
        let mut signed = core.clone();
        signed.extend_from_slice(&u16::try_from(stanzas.len()).unwrap_or(u16::MAX).to_be_bytes());
        for (kind, body) in &stanzas {
            signed.extend_from_slice(&kind.to_be_bytes());
            signed.extend_from_slice(&u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
            signed.extend_from_slice(body);
        }
        let mac = seal::mac(mac_key, &[&signed])?;
        let mut bytes = signed.clone();
        bytes.extend_from_slice(&mac);
        let sum: [u8; 32] = Sha256::digest(&bytes).into();
        bytes.extend_from_slice(&sum[..8]);
        let len = bytes.len() as u64;
        Ok((Self { spec, salt, stanzas, core_hash, len, core, signed, mac }, bytes))
    }

    /// Reads and parses a header; checks its plain checksum, not yet its MAC.
    pub fn read(input: &mut impl Read) -> Result<Self> {
        let mut all = vec![0u8; 12];
        fill(input, &mut all)?;
        if all[..8] != MAGIC {
            return Err(Error::check("not an object of a breakglass repository").why("its first bytes are others"));
        }
        let version = u16::from_be_bytes([all[8], all[9]]);
        if version != VERSION {
            return Err(Error::check(format!("object of format version {version}"))
                .why(format!("this breakglass reads version {VERSION}"))
                .hint("Use a newer breakglass, or look for damage with `breakglass backup verify`."));
        }
        let core_len = usize::from(u16::from_be_bytes([all[10], all[11]]));
        if !(FIXED + 2..=MAX_CORE).contains(&core_len) {
            return Err(Error::check(format!("header core of {core_len} bytes")));
        }
        extend(input, &mut all, core_len - 12)?;
        let core = all.clone();
        extend(input, &mut all, 2)?;
        let count = u16::from_be_bytes([all[core_len], all[core_len + 1]]);
        if count == 0 || count > MAX_STANZAS {
            return Err(Error::check(format!("an object with {count} key stanzas")));
        }
        let mut stanzas = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let at = all.len();
            extend(input, &mut all, 4)?;
            let kind = u16::from_be_bytes([all[at], all[at + 1]]);
            let len = u16::from_be_bytes([all[at + 2], all[at + 3]]);
            if len > MAX_STANZA {
                return Err(Error::check(format!("a key stanza of {len} bytes")));
            }
            extend(input, &mut all, usize::from(len))?;
            stanzas.push((kind, all[at + 4..].to_vec()));
        }
        let signed = all.clone();
        extend(input, &mut all, 40)?;
        let mut mac = [0u8; 32];
        mac.copy_from_slice(&all[signed.len()..signed.len() + 32]);
        let sum: [u8; 32] = Sha256::digest(&all[..signed.len() + 32]).into();
        if sum[..8] != all[signed.len() + 32..] {
            return Err(Error::check("the header is damaged").why("its checksum differs"));
        }
        let (spec, salt) = parse_core(&core)?;
        let core_hash = Sha256::digest(&core).into();
        Ok(Self { spec, salt, stanzas, core_hash, len: all.len() as u64, core, signed, mac })
    }

    /// Tells this object from every other, also of the same name and content: by its core, which random bytes are part of. For whom
    /// it is sealed may change, and it is still this one.
    pub fn id(&self) -> ObjectId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.core_hash[..16]);
        id
    }

    /// Checks type, repository and name. The fields compared are authenticated by the payload key and the MAC.
    pub fn is_as(&self, expect: &Expect<'_>) -> Result<()> {
        if self.spec.repository != expect.repository {
            return Err(Error::check("the object belongs to another repository").why(format!(
                "it says {}, expected {}",
                super::hex(&self.spec.repository),
                super::hex(&expect.repository)
            )));
        }
        if self.spec.name != expect.name {
            return Err(Error::check(format!("the object says it is {:?}", self.spec.name))
                .why("objects were swapped or renamed"));
        }
        if self.spec.object != expect.object {
            return Err(Error::check(format!("the object is a {}", self.spec.object.name()))
                .why(format!("expected a {}", expect.object.name())));
        }
        Ok(())
    }
}

fn extend(input: &mut impl Read, all: &mut Vec<u8>, n: usize) -> Result<()> {
    let at = all.len();
    all.resize(at + n, 0);
    fill(input, &mut all[at..])
}

fn fill(input: &mut impl Read, out: &mut [u8]) -> Result<()> {
    input.read_exact(out).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::check("the object ends inside its header"),
        _ => super::from_io(e, || "reading an object".into()),
    })
}
