"""How gateways are cut off from the control plane."""

import subprocess

from pair import Relay

HOW = ("both", "original", "reply")  # both ways; only what gateways say is lost; only what they are told


def nft(script):
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)


def own_network():
    """Before anybody binds to an address in it."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


class Nft:
    """
    In a network namespace that is ours alone. Gateway I dials 127.0.0.(10 + I), which is the control plane's address by another
    name, so that its connections, those it has and those it will try, are told apart from the others'.
    """

    def __init__(self, port):
        self.port = port
        nft(f"""
            table ip chaos {{
                chain names {{ type nat hook output priority -100;
                    ip daddr 127.0.0.0/8 ip daddr != 127.0.0.1 tcp dport {port} dnat to 127.0.0.1; }}
                chain cut {{ type filter hook input priority 0; }}
            }}
        """)

    def url(self, number):
        return f"tcp://127.0.0.{10 + number}:{self.port}"

    def cut(self, numbers, how="both"):
        direction = "" if how == "both" else f"ct direction {how}"
        nft("".join(f"add rule ip chaos cut ct original ip daddr 127.0.0.{10 + number} {direction} drop\n" for number in numbers))

    def heal(self):
        nft("flush chain ip chaos cut")

    def close(self):
        self.heal()


class Relays:
    """Where there is no nftables: a relay a gateway, which stops relaying."""

    def __init__(self, port):
        self.port = port
        self.relays = {}

    def url(self, number):
        relay = self.relays.setdefault(number, Relay(("127.0.0.1", self.port)))
        return f"tcp://127.0.0.1:{relay.port}"

    def cut(self, numbers, how="both"):
        for number in numbers:
            self.relays[number].cut()

    def heal(self):
        for relay in self.relays.values():
            relay.heal()

    def close(self):
        for relay in self.relays.values():
            relay.close()
