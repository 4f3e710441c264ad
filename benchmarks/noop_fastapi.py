"""The first yardstick: FastAPI that only reads the body."""

import sys

import uvicorn
from fastapi import FastAPI, Request, Response

app = FastAPI()


@app.post("/webhook/whatsapp/incoming")
async def incoming(request: Request) -> Response:
    """Read the body and answer as the edge does."""
    await request.body()
    return Response('<?xml version="1.0" encoding="UTF-8"?><Response/>', media_type="text/xml")


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
