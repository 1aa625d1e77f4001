// Verifies JWS with jose: the tokens and the JWK set come as JSON on standard input.

const { compactVerify, createLocalJWKSet, calculateJwkThumbprint, exportJWK, importX509 } = require("jose");

async function main() {
  const questions = JSON.parse(require("fs").readFileSync(0, "utf8"));
  const keys = createLocalJWKSet(questions.jwks);
  let verified = 0;
  let refused = 0;
  for (const { alg, compact, payload } of questions.tokens) {
    const found = await compactVerify(compact, keys, { algorithms: [alg] });
    if (!Buffer.from(found.payload).equals(Buffer.from(payload, "base64"))) throw new Error(`${alg}: another payload`);
    const { kid, x5c } = found.protectedHeader;
    const pem = `-----BEGIN CERTIFICATE-----\n${x5c[0].replace(/(.{64})/g, "$1\n")}\n-----END CERTIFICATE-----`;
    const certified = await exportJWK(await importX509(pem, alg, { extractable: true }));
    const published = questions.jwks.keys.find((key) => key.kid === kid);
    if ((await calculateJwkThumbprint(certified)) !== (await calculateJwkThumbprint(published))) {
      throw new Error(`${alg}: the certificate is another key's`);
    }
    verified += 1;

    const parts = compact.split(".");
    const changed = Buffer.from(parts[1], "base64url");
    changed[changed.length - 1] ^= 1;
    parts[1] = changed.toString("base64url");
    try {
      await compactVerify(parts.join("."), keys, { algorithms: [alg] });
    } catch (error) {
      if (error.code === "ERR_JWS_SIGNATURE_VERIFICATION_FAILED") refused += 1;
    }
  }
  console.log(`${verified} verified, ${refused} changed ones refused`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
