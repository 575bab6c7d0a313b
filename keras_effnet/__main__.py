"""`python -m keras_effnet` is the command `keras-effnet`."""

from keras_effnet.cli.app import main

if __name__ == "__main__":
    main()
