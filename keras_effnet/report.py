"""stub"""

INSTALL = "x"


def available():
    return False
