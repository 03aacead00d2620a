import streamlit as st
import pandas as pd
import os, json

st.markdown("<h4 style='color:#ccc'>STUFF!!!</h4>", unsafe_allow_html=True)
st.text_input("", key="a")
st.text_input("", key="b")
st.text_input("x", key="c", label_visibility="collapsed")
st.selectbox("", ["1", "2"], key="d")
c = st.columns(6)
for i in range(6):
    c[i].button("Go", key=f"k{i}")
st.markdown("---")
st.markdown("<div style='width:1900px;background:red'>wide</div>", unsafe_allow_html=True)
x = 1
