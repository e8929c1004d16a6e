"""Send the program beside this file an event as GitHub does, signed with $GITHUB_WEBHOOK_SECRET.

python examples/contexten_app/send_event.py http://127.0.0.1:8377
"""

from __future__ import annotations

import hmac
import json
import os
import sys
import uuid

import httpx

EVENT = {
    "action": "opened",
    "number": 2,
    "pull_request": {"number": 2, "title": "Update the README with new information.", "draft": False},
    "repository": {"id": 186853002, "full_name": "Codertocat/Hello-World"},
    "sender": {"login": "Codertocat"},
}


def main() -> None:
    body = json.dumps(EVENT).encode()
    signature = hmac.new(os.environ["GITHUB_WEBHOOK_SECRET"].encode(), body, "sha256").hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "pull_request",
        "X-GitHub-Delivery": str(uuid.uuid4()),
        "X-Hub-Signature-256": f"sha256={signature}",
    }
    answer = httpx.post(f"{sys.argv[1]}/hooks/github", content=body, headers=headers)
    print(answer.status_code, answer.text)


if __name__ == "__main__":
    main()
