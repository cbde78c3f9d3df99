"""An SMTP server that keeps what it gets in a mailbox, and behaves as it is told. Runs on a host of the lab.

postbox.py PORT [CERTIFICATE KEY starttls|tls]; with a certificate only host1 with the password secret may send.
What stands in /run/postbox is what it does: takes (or nothing), closes, hangs, refuses, defers, denies.
"""

import asyncio
import ssl
import sys
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword

MODE = Path("/run/postbox")


def mode() -> str:
    return MODE.read_text().strip() if MODE.exists() else "takes"


class Handler(Mailbox):
    async def handle_RCPT(  # noqa: N802
        self, _server: object, _session: object, envelope: Envelope, address: str, _options: object
    ) -> str:
        if mode() == "denies":
            return "550 5.7.1 relaying denied"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802
        doing = mode()
        if doing == "hangs":
            await asyncio.sleep(3600)
        if doing in ("defers", "refuses"):
            return {"defers": "451 4.3.0 later", "refuses": "554 5.6.0 not that one"}[doing]
        answer: str = await super().handle_DATA(server, session, envelope)
        if doing == "closes":  # it has the mail, but nobody knows
            server.transport.abort()
        return answer


def authenticate(
    _server: object, _session: object, _envelope: object, _mechanism: str, told: LoginPassword
) -> AuthResult:
    return AuthResult(success=(told.login, told.password) == (b"host1", b"secret"), handled=False)


def main() -> None:
    port, *files = sys.argv[1:]
    words: dict[str, Any] = {}
    if files:
        certificate, key, tls = files
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        words = {"authenticator": authenticate, "auth_required": True}
        words |= (
            {"ssl_context": context, "auth_require_tls": False}
            if tls == "tls"
            else {"tls_context": context, "require_starttls": True}
        )
    Controller(Handler("/var/mail/sre"), hostname="127.0.0.1", port=int(port), **words).start()
    asyncio.new_event_loop().run_forever()


if __name__ == "__main__":
    main()
