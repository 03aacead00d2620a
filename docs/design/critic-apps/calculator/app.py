import streamlit as st

st.set_page_config(page_title="Tip calculator")
st.title("Tip calculator")
st.write("Split a restaurant bill fairly between friends.")

bill = st.number_input("Bill amount", min_value=0.0, value=50.0)
tip = st.slider("Tip percentage", 0, 30, 15)
people = st.number_input("Number of people", min_value=1, value=2)
rounding = st.checkbox("Round up")

if st.button("Calculate"):
    total = bill * (1 + tip / 100)
    share = total / people
    share = float(int(share) + 1) if rounding else share
    st.metric("Total", f"{total:.2f}")
    st.metric("Each person pays", f"{share:.2f}")
