def add(a, b):
    return a + b


if __name__ == "__main__":
    print("The sum is", add(2, 3))
