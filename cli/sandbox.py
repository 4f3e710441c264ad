"""`switchboard sandbox`: the pretend vendors of a stack whose parts run elsewhere."""

import asyncio
import contextlib
import os
import shutil
import threading
from pathlib import Path

import httpx
from dotenv import dotenv_values

from cli.data_folder import Addresses, DataFolder
from cli.environment import load_environment
from cli.pretend_phone import PretendPhone
from cli.run_settings import RunSettings
from cli.run_variables import uses_baileys
from sandbox.__main__ import main
from services.common.settings import split_list


def serve_sandbox(*, settings: Path, lend: Path, webhook: str, health: str, grpc: str) -> int:
    """Serve until interrupted; meanwhile `say` and `call` find the stack by the data folder.

    Args:
        settings: File of the variables that the whole stack runs on.
        lend: Where the stack's parts read them.
        webhook: Origin of the edge, as the sandbox reaches it.
        health: Origin of health.
        grpc: Host and port of messaging.
    """
    given = {name: value for name, value in dotenv_values(settings).items() if value is not None}
    os.environ.update(given, SANDBOX_HOST="0.0.0.0", SANDBOX_OPEN="true")  # noqa: S104 - Among containers.
    os.environ.setdefault("SANDBOX_WEBHOOK_URL", webhook)
    os.environ.setdefault("SANDBOX_BASE_URL", given["TWILIO_API_BASE_URL"])
    environment = load_environment(settings, sandbox_allowed=False)
    run = RunSettings.load(environment.variables)
    whatsapp = None
    if uses_baileys(environment.variables):
        whatsapp = environment.variables["SANDBOX_WHATSAPP_CONTROL_URL"]
        queue = Path(environment.variables["BAILEYS_QUEUE_DIR"])
        phone = PretendPhone(queue / "state.json", whatsapp)
        threading.Thread(target=asyncio.run, args=(_scan(phone),), daemon=True).start()
    with DataFolder(run.switchboard_data_dir) as folder:
        folder.publish(
            Addresses(
                webhook=webhook,
                health=health,
                grpc=grpc,
                grpc_token=split_list(environment.variables["GRPC_TOKEN"])[0],
                # Commands that need these run in messaging's container.
                nats_url="",
                database_url="",
                sandbox=f"http://127.0.0.1:{run.switchboard_sandbox_port}",
                whatsapp=whatsapp,
            )
        )
        shutil.copyfile(settings, lend)
        main()
    return 0


async def _scan(phone: PretendPhone) -> None:
    while True:
        if state := phone.state():
            # It starts when it does.
            with contextlib.suppress(httpx.HTTPError):
                await phone.scan(state)
        await asyncio.sleep(1)
